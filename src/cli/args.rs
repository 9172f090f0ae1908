//! The command line as types: what may be typed, not what it does.

mod steer;
mod value;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use super::bench::args::BenchArgs;
use super::complete;
use super::local::logs::Level;
use super::output::{Color, Format};
use super::units::parse_duration;
use crate::node::config::Eviction;
use crate::proto::id::{MasterId, NodeId};
use crate::tui;
use crate::tui::model::Screen;
use crate::tui::theme::ThemeName;

pub use steer::*;
pub use value::*;

/// A distributed cache with synchronous backups: start it, watch it, steer it.
#[derive(Debug, Parser)]
#[command(name = "cachectl", version, propagate_version = true, disable_help_subcommand = true, max_term_width = 110)]
#[command(arg_required_else_help = false, disable_help_flag = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// Print help
    // One form of help: clap's long one would put every value on a line of its own.
    #[arg(short, long, global = true, action = clap::ArgAction::HelpShort, help_heading = "Global options")]
    help: Option<bool>,
    /// Flags of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 usage, 3 cluster not ok, 4 a --wait or --timeout passed, \
5 refused for safety, 130 detached by Ctrl-C.\n\
A flag wins over CACHECTL_* variables, these over the configuration file, that over the context of the last `up`.";

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Which local cluster [env: CACHECTL_NAME]
    #[arg(long, global = true, value_name = "NAME", value_parser = cluster_name, add = complete::clusters())]
    pub name: Option<String>,
    /// Masters to talk to, instead of a local cluster's [env: CACHECTL_MASTERS_ADDR]
    #[arg(long, global = true, value_name = "HOST:PORT,…", value_delimiter = ',', value_parser = host_port)]
    pub masters_addr: Vec<String>,
    /// How to print data
    #[arg(short, long, global = true, value_name = "FORMAT", env = "CACHECTL_OUTPUT", hide_env_values = true)]
    pub output: Option<Format>,
    /// Print no words but errors
    #[arg(short, long, global = true, env = "CACHECTL_QUIET", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Print more words
    #[arg(short, long, global = true, env = "CACHECTL_VERBOSE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// Answer every question with yes
    #[arg(short, long, global = true, env = "CACHECTL_YES", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub yes: bool,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", env = "CACHECTL_COLOR", hide_env_values = true)]
    pub color: Option<Color>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a local cluster and wait until every slot serves and has its backup
    Up(Box<UpArgs>),
    /// Stop a local cluster
    Down(DownArgs),
    /// List the local clusters
    Ls,
    /// Show or choose the cluster that commands mean
    Context(ContextArgs),
    /// How the cluster is, on one screen; exits 3 unless it is ok
    #[command(visible_alias = "ps")]
    Status(StatusArgs),
    /// The manager on the screen
    Tui(TuiArgs),
    /// Scale out: give new nodes their share of the slots
    Add(AddArgs),
    /// Scale in: drain nodes, then stop them
    Remove(RemoveArgs),
    /// Even the nodes' shares out
    Rebalance(RebalanceArgs),
    /// Hand the masters' leadership over
    Switchover(SwitchoverArgs),
    /// Operations: how far they are, pause, resume, cancel
    Ops(OpsArgs),
    /// Give up on a dead node, and on the data that only it held
    Forget(ForgetArgs),
    /// Read a key; exits 1 if it is missing
    Get(KeyArg),
    /// Write a key
    Set(SetArgs),
    /// Delete keys; prints how many there were
    Del(DelArgs),
    /// Seconds a key has left; -1 = for ever, -2 = missing
    Ttl(KeyArg),
    /// Add one to a number
    Incr(KeyArg),
    /// Which slot a key is in, and who holds it
    Where(KeyArg),
    /// Load the cluster, or any Redis, Valkey or memcached, and measure
    Bench(Box<BenchArgs>),
    /// What happened in the cluster, and who asked for it
    Events(EventsArgs),
    /// Logs of all processes of a local cluster, merged by time
    Logs(LogsArgs),
    /// Whether every slot is covered, and backups hold what primaries hold; exits 3 if not
    Check(CheckArgs),
    /// Check a cluster file or the configuration file
    Config(ConfigArgs),
    /// Print the completion script of a shell: names of nodes, masters and operations are completed live
    Completion(CompletionArgs),
    /// Print a page of the manual, to be piped into `man -l -`
    Man(ManArgs),
    /// Start processes of a local cluster that do not run
    Start(StartArgs),
    /// Stop processes of a local cluster; a node hands its slots over first
    Stop(StopArgs),
    /// Restart processes of a local cluster, or all of them one by one
    Restart(RestartArgs),
    /// Faults on purpose: kill, pause or resume processes of a local cluster
    Chaos(ChaosArgs),
    /// Run one master in the foreground
    Master(Box<MasterArgs>),
    /// Run one cache node in the foreground
    Node(Box<NodeArgs>),
}

/// `up`
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// How many masters: 1, 3 or 5 [default: 3]
    #[arg(long, env = "CACHECTL_MASTERS", hide_env_values = true, value_parser = masters_count)]
    pub masters: Option<usize>,
    /// How many cache nodes, 1 to 99 [default: 3]
    #[arg(long, env = "CACHECTL_NODES", hide_env_values = true, value_parser = nodes_count)]
    pub nodes: Option<usize>,
    /// Backups of each slot: 0 or 1 [default: 1]
    #[arg(long, env = "CACHECTL_BACKUPS", hide_env_values = true, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub backups: Option<u8>,
    /// Memory of each node for keys and values [default: 256mb]
    #[arg(long, env = "CACHECTL_MEMORY", hide_env_values = true, value_name = "SIZE", value_parser = parse_memory)]
    pub memory: Option<u64>,
    /// Who goes when a node's memory is full: the least recently used (lru), or first what nobody asked for twice (sieve)
    /// [default: lru]
    #[arg(long, env = "CACHECTL_EVICTION", hide_env_values = true, value_name = "POLICY", value_parser = eviction())]
    pub eviction: Option<Eviction>,
    /// First port of the cluster's block of 200 [default: the next free one from 7100]
    #[arg(long, env = "CACHECTL_BASE_PORT", hide_env_values = true, value_name = "PORT", value_parser = base_port)]
    pub base_port: Option<u16>,
    /// A cluster file (TOML) with the same words; flags win over it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// How long to wait until the cluster is ok
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub wait: Duration,
    /// Stay, with all logs on the terminal; Ctrl-C is `down`
    #[arg(long, conflicts_with = "tui")]
    pub foreground: bool,
    /// Open the manager on the screen when the cluster is ok
    #[arg(long)]
    pub tui: bool,
}

/// `down`
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// Also remove the logs and the masters' data
    #[arg(long)]
    pub purge: bool,
}

/// `context`
#[derive(Debug, Clone, Args)]
pub struct ContextArgs {
    /// What to do; `ls` if nothing is said
    #[command(subcommand)]
    pub command: Option<ContextCommand>,
}

/// `context …`
#[derive(Debug, Clone, Subcommand)]
pub enum ContextCommand {
    /// List the clusters that may be chosen
    Ls,
    /// Choose one
    Use {
        /// A local cluster
        #[arg(value_parser = cluster_name, add = complete::clusters())]
        cluster: String,
    },
}

/// `status`
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Again and again, every TIME (1s)
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1s", value_parser = parse_interval)]
    pub watch: Option<Duration>,
}

/// `tui`
#[derive(Debug, Clone, Args)]
pub struct TuiArgs {
    /// Watch only: no action changes anything
    #[arg(long)]
    pub read_only: bool,
    /// Draw with ASCII only
    #[arg(long)]
    pub ascii: bool,
    /// Colours: auto, dark, light, cvd or mono
    #[arg(long, value_name = "THEME", default_value = "auto")]
    pub theme: ThemeName,
    /// Take mouse clicks and the wheel
    #[arg(long)]
    pub mouse: bool,
    /// Frames a second at most [default: 20, over SSH 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=60))]
    pub fps: Option<u16>,
    /// Keep what is seen in this new file, as lines of JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "replay")]
    pub record: Option<PathBuf>,
    /// Play a recording instead of watching a cluster
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub replay: Option<PathBuf>,
    /// How many times faster than life the recording is played
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=64), requires = "replay")]
    pub speed: u32,
    /// Print a picture of a screen instead: overview, ring, migrations, masters, events or keys
    #[arg(long, value_name = "SCREEN")]
    pub snapshot: Option<Screen>,
    /// Columns and rows of the picture
    #[arg(long, value_name = "WxH", default_value = "120x36", value_parser = screen_size, requires = "snapshot")]
    pub size: (u16, u16),
    /// How the picture is written: text, ansi or svg
    #[arg(long, value_name = "FORMAT", default_value = "text", requires = "snapshot")]
    pub format: tui::Format,
    /// Watch this long before the picture is drawn, so that its charts have a past
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration, requires = "snapshot")]
    pub gather: Duration,
}

impl Default for TuiArgs {
    fn default() -> Self {
        Self {
            read_only: false,
            ascii: false,
            theme: ThemeName::Auto,
            mouse: false,
            fps: None,
            record: None,
            replay: None,
            speed: 1,
            snapshot: None,
            size: (120, 36),
            format: tui::Format::Text,
            gather: Duration::ZERO,
        }
    }
}

/// A command on one key.
#[derive(Debug, Clone, Args)]
pub struct KeyArg {
    /// The key
    pub key: OsString,
}

/// `set`
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// The key
    pub key: OsString,
    /// The value; `-` reads it from stdin
    #[arg(allow_negative_numbers = true)]
    pub value: OsString,
    /// Forget the key after this time
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    pub ttl: Option<Duration>,
}

/// `del`
#[derive(Debug, Clone, Args)]
pub struct DelArgs {
    /// The keys
    #[arg(required = true)]
    pub keys: Vec<OsString>,
}

/// `events`
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Only what is younger than this
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// Go on as things happen
    #[arg(short, long)]
    pub follow: bool,
}

/// `logs`
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Whose: m1, n2, … [default: all]
    #[arg(add = complete::processes())]
    pub who: Vec<String>,
    /// Go on as lines are written
    #[arg(short, long)]
    pub follow: bool,
    /// Only lines younger than this
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
    /// Only lines this grave or graver
    #[arg(long, value_name = "LEVEL", ignore_case = true)]
    pub level: Option<Level>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
}

/// `config`
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// `config …`
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Read a file as `up --config` (or every command) would, and say what it comes to
    Check {
        /// A cluster file, or a configuration file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Print one process of its hosts as an environment file, as in `cachectl config check FILE --env m1`
        #[arg(long, value_name = "WHO")]
        env: Option<String>,
    },
}

/// `completion`
#[derive(Debug, Clone, Copy, Args)]
pub struct CompletionArgs {
    /// Which shell
    pub shell: Shell,
}

/// Shells that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// In ~/.bashrc: source <(cachectl completion bash)
    Bash,
    /// In ~/.zshrc, after compinit: source <(cachectl completion zsh)
    Zsh,
    /// cachectl completion fish > ~/.config/fish/completions/cachectl.fish
    Fish,
}

/// `man`
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// Of which command [default: of all, in one page]
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Write the pages of all commands into this directory instead
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "command")]
    pub dir: Option<PathBuf>,
}

/// `master`
#[derive(Debug, Clone, Args)]
pub struct MasterArgs {
    /// Its name
    #[arg(long, env = "CACHECTL_ID", hide_env_values = true, default_value = "m1")]
    pub id: MasterId,
    /// Where nodes, operators and the other masters reach it
    #[arg(
        long,
        env = "CACHECTL_LISTEN",
        hide_env_values = true,
        value_name = "ADDR",
        default_value = "127.0.0.1:7101"
    )]
    pub listen: String,
    /// All masters, this one among them: m1=HOST:PORT,… [default: this one alone]
    #[arg(long, env = "CACHECTL_PEERS", hide_env_values = true, value_name = "ID=ADDR,…", value_delimiter = ',', value_parser = peer)]
    pub peers: Vec<(MasterId, String)>,
    /// Its state directory: Raft log, vote, snapshots [default: below the XDG state directory]
    #[arg(long, env = "CACHECTL_DATA", hide_env_values = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// The cluster's name, shown to people [default: demo]
    #[arg(long, env = "CACHECTL_CLUSTER", hide_env_values = true, value_name = "NAME", value_parser = cluster_name)]
    pub cluster: Option<String>,
    /// How many nodes shall register before slots are handed out for the first time
    #[arg(long, env = "CACHECTL_EXPECT_NODES", hide_env_values = true, value_name = "N", default_value_t = 1)]
    pub expect_nodes: usize,
    /// After this time fewer nodes do
    #[arg(long, env = "CACHECTL_FORM_WAIT", hide_env_values = true, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub form_wait: Duration,
    /// Backups of each slot of a new cluster: 0 or 1
    #[arg(long, env = "CACHECTL_BACKUPS", hide_env_values = true, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub backups: u8,
    /// A refused connection proves a node's death; say false where something else may refuse in its name
    #[arg(long, env = "CACHECTL_REFUSED_IS_DEATH", hide_env_values = true, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub refused_is_death: bool,
    /// Where a server writes
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `node`
#[derive(Debug, Clone, Args)]
pub struct NodeArgs {
    /// Its name
    #[arg(long, env = "CACHECTL_ID", hide_env_values = true, default_value = "n1")]
    pub id: NodeId,
    /// Where clients connect
    #[arg(
        long,
        env = "CACHECTL_LISTEN",
        hide_env_values = true,
        value_name = "ADDR",
        default_value = "127.0.0.1:7201"
    )]
    pub listen: String,
    /// Where other nodes connect [default: --listen's port + 10000]
    #[arg(long, env = "CACHECTL_PEER_LISTEN", hide_env_values = true, value_name = "ADDR")]
    pub peer_listen: Option<String>,
    /// The host that others reach it by, if not the one it listens on
    #[arg(long, env = "CACHECTL_ANNOUNCE_ADDR", hide_env_values = true, value_name = "HOST", value_parser = host)]
    pub announce_addr: Option<String>,
    /// Its state directory: lock, home id [default: below the XDG state directory]
    #[arg(long, env = "CACHECTL_DATA", hide_env_values = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Memory for keys and values, primaries and backups together
    #[arg(long, env = "CACHECTL_MEMORY", hide_env_values = true, value_name = "SIZE", default_value = "256mb", value_parser = parse_memory)]
    pub memory: u64,
    /// Who goes when memory is full: the least recently used (lru), or first what nobody asked for twice (sieve)
    #[arg(long, env = "CACHECTL_EVICTION", hide_env_values = true, value_name = "POLICY", default_value = "lru", value_parser = eviction())]
    pub eviction: Eviction,
    /// Data-path threads
    #[arg(long, env = "CACHECTL_THREADS", hide_env_values = true, value_name = "N", default_value_t = 1, value_parser = threads)]
    pub threads: usize,
    /// Failure domain: a backup is kept in another one where there is one
    #[arg(long, env = "CACHECTL_ZONE", hide_env_values = true, default_value = "", value_parser = zone)]
    pub zone: String,
    /// Share of slots relative to the other nodes
    #[arg(long, env = "CACHECTL_WEIGHT", hide_env_values = true, default_value = "1.0", value_parser = weight)]
    pub weight: f64,
    /// Hold nothing until added by name
    #[arg(long, env = "CACHECTL_STANDBY", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub standby: bool,
    /// How long SIGTERM may drain
    #[arg(long, env = "CACHECTL_DRAIN_TIMEOUT", hide_env_values = true, value_name = "TIME", default_value = "25s", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// No masters, all slots, no backup
    #[arg(long, env = "CACHECTL_STANDALONE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub standalone: bool,
    /// Where a server writes
    #[command(flatten)]
    pub server: ServerArgs,
}

/// What masters and nodes share.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Listen beyond loopback: there is no authentication yet
    #[arg(long, env = "CACHECTL_INSECURE_BIND", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub insecure_bind: bool,
    /// Write the log into this directory instead of stderr
    #[arg(long, env = "CACHECTL_LOG_DIR", hide_env_values = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub log_dir: Option<PathBuf>,
    /// What to log, as in `info` or `info,cachectl::node=debug`
    #[arg(
        long,
        env = "CACHECTL_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        default_value = "info,openraft=warn"
    )]
    pub log: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("cachectl").chain(words.iter().copied()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn globals_may_stand_anywhere() {
        for words in [&["--name", "a", "-o", "json", "status"][..], &["status", "--name", "a", "-o", "json"]] {
            let cli = parse(words).unwrap();
            assert_eq!(cli.globals.name.as_deref(), Some("a"));
            assert_eq!(cli.globals.output, Some(Format::Json));
        }
        let cli = parse(&["node", "--masters-addr", "127.0.0.1:1,localhost:2"]).unwrap();
        assert_eq!(cli.globals.masters_addr, ["127.0.0.1:1", "localhost:2"]);
    }

    #[test]
    fn watch_takes_its_interval_after_an_equals_sign_only() {
        let watch = |words: &[&str]| match parse(words).unwrap().command {
            Some(Command::Status(s)) => s.watch,
            other => panic!("{other:?}"),
        };
        assert_eq!(watch(&["ps"]), None);
        assert_eq!(watch(&["status", "--watch"]), Some(Duration::from_secs(1)));
        assert_eq!(watch(&["status", "--watch=500ms"]), Some(Duration::from_millis(500)));
        assert!(parse(&["status", "--watch=0"]).is_err());
    }

    #[test]
    fn refused_is_death_may_be_denied() {
        let value = |words: &[&str]| match parse(words).unwrap().command {
            Some(Command::Master(m)) => m.refused_is_death,
            other => panic!("{other:?}"),
        };
        assert!(value(&["master"]));
        assert!(value(&["master", "--refused-is-death"]));
        assert!(!value(&["master", "--refused-is-death=false"]));
    }

    #[test]
    fn a_value_may_be_a_negative_number() {
        match parse(&["set", "k", "-5", "--ttl", "10"]).unwrap().command {
            Some(Command::Set(s)) => {
                assert_eq!(s.value, "-5");
                assert_eq!(s.ttl, Some(Duration::from_secs(10)));
            }
            other => panic!("{other:?}"),
        }
        match parse(&["set", "k", "-"]).unwrap().command {
            Some(Command::Set(s)) => assert_eq!(s.value, "-"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for words in [
            &["up", "--masters", "2"][..],
            &["up", "--nodes", "0"],
            &["up", "--nodes", "100"],
            &["up", "--backups", "2"],
            &["up", "--base-port", "65000"],
            &["up", "--memory", "10"],
            &["up", "--tui", "--foreground"],
            &["up", "--name", ".."],
            &["up", "--name", "a/b"],
            &["node", "--weight", "0"],
            &["node", "--id", "a b"],
            &["node", "--announce-addr", "10.0.0.7:7201"],
            &["del"],
            &["status", "--masters-addr", "nohost"],
            &["no-such-command"],
        ] {
            let e = parse(words).unwrap_err();
            assert_eq!(e.exit_code(), 2, "{words:?}");
        }
    }
}
