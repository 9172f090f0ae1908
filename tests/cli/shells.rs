//! Completion scripts in the shells themselves, and pages of the manual as the formatter reads them.

use std::process::Command;
use std::time::Duration;

use crate::common::tool::{Finished, require, run};
use crate::sandbox::Sandbox;

/// Far beyond what a shell needs, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn shell(s: &Sandbox, program: &str, install: &str, flags: &[&str], script: &str) -> Finished {
    let cachectl = s.command(&[]);
    let mut c = Command::new(require(program, install));
    c.args(flags).arg("-c").arg(script).env("CACHECTL", cachectl.get_program());
    for (name, value) in cachectl.get_envs() {
        match value {
            Some(value) => c.env(name, value),
            None => c.env_remove(name),
        };
    }
    run(&mut c, LIMIT)
}

fn bash(s: &Sandbox, words: &str, at: usize) -> String {
    let script = format!(
        "source <(\"$CACHECTL\" completion bash); COMP_WORDS=({words}); COMP_CWORD={at}; COMP_TYPE=9; \
         _clap_complete_cachectl cachectl \"${{COMP_WORDS[$COMP_CWORD]}}\" x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    shell(s, "bash", "apt-get install bash", &["--norc"], &script).expect_success("bash").stdout
}

#[test]
fn bash_zsh_and_fish_complete_a_live_nodes_name() {
    let s = Sandbox::new();
    s.up(&["--masters", "1", "--nodes", "2"]).exits(0);
    let lines = |text: &str| text.lines().map(|l| l.trim().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&bash(&s, "cachectl restart n", 2)), ["n1", "n2"]);
    assert_eq!(lines(&bash(&s, "cachectl switchover --to m", 3)), ["m1"]);
    assert!(lines(&bash(&s, "cachectl sw", 1)).contains(&"switchover".to_owned()));
    assert_eq!(lines(&bash(&s, "cachectl down --name d", 3)), ["demo"]);
    // Of a cluster that is meant by name; of one that is not there nothing, and no error either.
    assert_eq!(lines(&bash(&s, "cachectl --name demo chaos kill n", 5)), ["n1", "n2"]);
    assert_eq!(lines(&bash(&s, "cachectl --name nobody chaos kill n", 5)), [""]);
    // Its scripts hand the words to this function; what it would show is printed instead.
    let zsh = "autoload -Uz compinit && compinit -D -u && source <(\"$CACHECTL\" completion zsh); \
               print -r -- \"registered ${_comps[cachectl]}\"; \
               _describe() { print -rl -- \"${(@P)argv[-1]}\" }; \
               words=(cachectl restart n); CURRENT=3; _clap_dynamic_completer_cachectl";
    let got = shell(&s, "zsh", "apt-get install zsh", &["-f"], zsh).expect_success("zsh").stdout;
    assert!(got.contains("registered _clap_dynamic_completer_cachectl"), "{got}");
    assert!(lines(&got).contains(&"n2".to_owned()), "{got}");
    let fish = "$CACHECTL completion fish | source; complete -C 'cachectl restart n'";
    let got = shell(&s, "fish", "apt-get install fish", &["--no-config"], fish).expect_success("fish").stdout;
    assert_eq!(lines(&got), ["n1", "n2"]);
    s.run(&["completion", "tcsh"]).exits(2);
    s.run(&["down"]).exits(0);
}

#[test]
fn the_manual_renders_without_a_warning() {
    let s = Sandbox::new();
    let dir = s.dir.path().join("man");
    s.run(&["man", "--dir", dir.to_str().unwrap()]).exits(0);
    let pages: Vec<_> = std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.path()).collect();
    assert!(pages.len() > 30, "{}", pages.len());
    let groff = require("groff", "apt-get install groff-base");
    for page in &pages {
        let mut c = Command::new(&groff);
        let done = run(c.args(["-Kutf8", "-man", "-ww", "-Tutf8", "-Z"]).arg(page), LIMIT).expect_success("groff");
        assert!(done.stderr.is_empty(), "{}: {}", page.display(), done.stderr);
    }
    let add = s.run(&["man", "add"]).exits(0).out;
    assert!(add.contains("scale out") || add.contains("Scale out"), "{add}");
    assert!(s.run(&["man", "ops", "show"]).exits(0).out.contains("ops"));
    let (code, _, hint) = s.run(&["man", "statsu", "-o", "json"]).exits(1).error();
    assert_eq!(code, "NO_COMMAND");
    assert!(hint.contains("did you mean status?"), "{hint}");
}
