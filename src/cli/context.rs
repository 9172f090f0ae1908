//! Which cluster a command means: flag, then `CACHECTL_*`, then the configuration file, then what the last `up` wrote.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::args::{Globals, cluster_name, host_port};
use super::error::CliError;
use super::local::state::{self, Home};
use super::names::near_miss;
use super::output::{Color, Format, escape};

/// The cluster's name where nobody says one.
pub const DEFAULT_NAME: &str = "demo";

/// The person's configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct UserConfig {
    /// Which local cluster.
    pub name: Option<String>,
    /// Masters to talk to.
    pub masters_addr: Vec<String>,
    /// How to print data.
    pub output: Option<Format>,
    /// When to colour.
    pub color: Option<Color>,
}

/// What may stand in it.
pub const USER_KEYS: [&str; 4] = ["name", "masters_addr", "output", "color"];

impl UserConfig {
    /// Reads `$XDG_CONFIG_HOME/cachectl/config.toml`; a missing file is an empty one.
    pub fn load() -> Result<Self, CliError> {
        let Some(dir) = xdg("XDG_CONFIG_HOME", ".config") else {
            return Ok(Self::default());
        };
        let path = dir.join("cachectl/config.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(CliError::failed("CONFIG", format!("cannot read {}: {e}", path.display()))),
        };
        Self::parse(&text, &path)
    }

    /// Checks what was read.
    pub fn parse(text: &str, path: &Path) -> Result<Self, CliError> {
        let config: UserConfig = parse_toml(text, path, &USER_KEYS)?;
        let bad = |e: String| CliError::usage(format!("{}: {e}", path.display()));
        if let Some(n) = &config.name {
            cluster_name(n).map_err(bad)?;
        }
        for a in &config.masters_addr {
            host_port(a).map_err(bad)?;
        }
        Ok(config)
    }
}

/// Reads a TOML file whose top-level keys are known; an unknown one is an error that names the nearest known.
pub fn parse_toml<T: serde::de::DeserializeOwned>(text: &str, path: &Path, known: &[&str]) -> Result<T, CliError> {
    let bad = |e: toml::de::Error| {
        let line = e.span().map_or(1, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        CliError::usage(format!("{}:{line}: {}", path.display(), e.message().trim()))
            .hint("the file is TOML; demo/cluster.toml is an example")
    };
    let table: toml::Table = toml::from_str(text).map_err(bad)?;
    for key in table.keys() {
        if !known.contains(&key.as_str()) {
            let near = near_miss(&key.replace('-', "_"), known.iter().copied());
            return Err(CliError::usage(format!("{}: unknown key `{}`", path.display(), escape(key))).hint(
                match near {
                    Some(n) => format!("did you mean `{n}`?"),
                    None => format!("known keys are {}", known.join(", ")),
                },
            ));
        }
    }
    toml::from_str(text).map_err(bad)
}

/// An XDG base directory, or its default below the home directory; relative ones are ignored, as the specification asks.
pub fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |v: &str| std::env::var_os(v).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))
}

/// Who said which cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// `--name` or `--masters-addr`.
    Flag,
    /// `CACHECTL_NAME` or `CACHECTL_MASTERS_ADDR`.
    Env,
    /// The configuration file.
    File,
    /// What the last `up` or `context use` wrote.
    Context,
    /// Nobody.
    Default,
}

/// Which cluster is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A local cluster's name; with `masters` only a name to show.
    pub name: String,
    /// Masters said by address; empty = the local cluster `name`.
    pub masters: Vec<String>,
    /// Who said so.
    pub said: Said,
}

/// What one level says.
#[derive(Debug, Clone, Default)]
struct Level {
    name: Option<String>,
    masters: Vec<String>,
}

/// Goes down the levels: the first that says anything wins whole, so that a name in a flag beats masters in the environment.
fn choose(levels: [(Said, Level); 4]) -> Target {
    for (said, level) in levels {
        if level.name.is_some() || !level.masters.is_empty() {
            return Target { name: level.name.unwrap_or_else(|| DEFAULT_NAME.into()), masters: level.masters, said };
        }
    }
    Target { name: DEFAULT_NAME.into(), masters: Vec::new(), said: Said::Default }
}

impl Target {
    /// Asks flag, environment, file and context.
    pub fn resolve(globals: &Globals, config: &UserConfig) -> Result<Self, CliError> {
        let env = |v: &str| std::env::var(v).ok().filter(|s| !s.is_empty());
        let bad = |v: &str, e: String| CliError::usage(format!("{v}: {e}"));
        let env_name =
            env("CACHECTL_NAME").map(|n| cluster_name(&n)).transpose().map_err(|e| bad("CACHECTL_NAME", e))?;
        let env_masters = env("CACHECTL_MASTERS_ADDR")
            .map(|m| m.split(',').map(host_port).collect::<Result<Vec<_>, _>>())
            .transpose()
            .map_err(|e| bad("CACHECTL_MASTERS_ADDR", e))?
            .unwrap_or_default();
        let target = choose([
            (Said::Flag, Level { name: globals.name.clone(), masters: globals.masters_addr.clone() }),
            (Said::Env, Level { name: env_name, masters: env_masters }),
            (Said::File, Level { name: config.name.clone(), masters: config.masters_addr.clone() }),
            (Said::Context, Level { name: current(), masters: Vec::new() }),
        ]);
        let _ = MEANT.set(target.clone());
        Ok(target)
    }
}

/// What this process's command line means, for the hints of errors.
static MEANT: OnceLock<Target> = OnceLock::new();

/// What to do where nobody answers. A bare `up` would start another cluster where only a flag or the context names the one meant.
pub fn nobody_answers() -> String {
    let up = match MEANT.get() {
        Some(t) if matches!(t.said, Said::Flag | Said::Context) && t.name != DEFAULT_NAME => {
            format!("`cachectl up --name {}`", t.name)
        }
        _ => "`cachectl up`".to_owned(),
    };
    format!("`cachectl ls` shows what runs; {up} starts what is missing of a local cluster")
}

#[derive(Debug, Serialize, Deserialize)]
struct ContextFile {
    name: String,
}

/// A leading dot keeps it apart from the clusters' directories beside it.
const CONTEXT_FILE: &str = ".context.json";

/// The cluster that the last `up` or `context use` chose; a broken file counts as none.
pub fn current() -> Option<String> {
    let text = std::fs::read(Home::root()?.join(CONTEXT_FILE)).ok()?;
    let file: ContextFile = serde_json::from_slice(&text).ok()?;
    cluster_name(&file.name).ok()
}

/// Chooses a cluster for the commands to come.
pub fn choose_current(name: &str) -> Result<(), CliError> {
    let root = Home::root().ok_or_else(state::no_home)?;
    state::write_json(&root.join(CONTEXT_FILE), &ContextFile { name: name.into() })
}

/// Forgets the choice, if it is this cluster: its state is gone.
pub fn forget_current(name: &str) {
    if current().as_deref() == Some(name)
        && let Some(root) = Home::root()
    {
        let _ = std::fs::remove_file(root.join(CONTEXT_FILE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(name: Option<&str>, masters: &[&str]) -> Level {
        Level { name: name.map(Into::into), masters: masters.iter().map(|m| (*m).into()).collect() }
    }

    #[test]
    fn the_first_level_that_speaks_wins_whole() {
        let t = choose([
            (Said::Flag, level(Some("a"), &[])),
            (Said::Env, level(None, &["h:1"])),
            (Said::File, level(None, &[])),
            (Said::Context, level(Some("z"), &[])),
        ]);
        assert_eq!(t, Target { name: "a".into(), masters: vec![], said: Said::Flag });
        let t = choose([
            (Said::Flag, level(None, &[])),
            (Said::Env, level(None, &["h:1"])),
            (Said::File, level(Some("f"), &[])),
            (Said::Context, level(Some("z"), &[])),
        ]);
        assert_eq!((t.masters.len(), t.said), (1, Said::Env));
        let none = || level(None, &[]);
        let t = choose([(Said::Flag, none()), (Said::Env, none()), (Said::File, none()), (Said::Context, none())]);
        assert_eq!((t.name.as_str(), t.said), ("demo", Said::Default));
    }

    #[test]
    fn an_unknown_key_names_its_neighbour() {
        let e = parse_toml::<UserConfig>("master_addr = []\n", Path::new("c.toml"), &USER_KEYS).unwrap_err();
        let CliError::Failed(_, f) = e else { panic!() };
        assert!(f.message.contains("master_addr"), "{f:?}");
        assert_eq!(f.hint.as_deref(), Some("did you mean `masters_addr`?"));
        assert_eq!(near_miss("xyzzy", USER_KEYS), None);
        let ok: UserConfig = parse_toml("output = 'json'\n", Path::new("c.toml"), &USER_KEYS).unwrap();
        assert_eq!(ok.output, Some(Format::Json));
        let e = parse_toml::<UserConfig>("a = 1\noutput = [\n", Path::new("c.toml"), &USER_KEYS).unwrap_err();
        let CliError::Failed(_, f) = e else { panic!() };
        assert!(f.message.starts_with("c.toml:"), "{f:?}");
    }
}
