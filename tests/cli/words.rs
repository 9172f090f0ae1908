//! What needs no cluster: help, usage errors, formats, colours, streams.

use std::process::Stdio;

use crate::sandbox::Sandbox;

/// The subcommands that help lists.
fn subcommands(s: &Sandbox) -> Vec<String> {
    let help = s.run(&["--help"]).exits(0).out;
    let section = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = section.lines().filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    names.map(|l| l.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn every_command_has_help_and_takes_the_global_flags() {
    let s = Sandbox::new();
    let all = subcommands(&s);
    for known in [
        "up",
        "down",
        "ls",
        "context",
        "status",
        "tui",
        "add",
        "remove",
        "rebalance",
        "switchover",
        "ops",
        "forget",
        "check",
        "get",
        "set",
        "del",
        "ttl",
        "incr",
        "where",
        "events",
        "logs",
        "config",
        "completion",
        "man",
        "start",
        "stop",
        "restart",
        "chaos",
        "master",
        "node",
    ] {
        assert!(all.iter().any(|c| c == known), "{known} is not in {all:?}");
    }
    for command in &all {
        let ran = s.run(&[command, "--help"]).exits(0);
        assert!(ran.err.is_empty(), "{command}: {}", ran.err);
        assert!(ran.out.contains("Usage:"), "{command}: {}", ran.out);
        for flag in ["--name", "--masters-addr", "--output", "--quiet", "--verbose", "--yes", "--color", "--version"] {
            assert!(ran.out.contains(flag), "{command} --help does not name {flag}:\n{}", ran.out);
        }
        let ran = s.run(&[command, "--no-such-flag"]).exits(2);
        assert!(ran.out.is_empty() && ran.err.contains("hint:"), "{command}: {}{}", ran.out, ran.err);
        s.run(&[command, "--version"]).exits(0);
    }
}

#[test]
fn nothing_asked_for_shows_help_and_where_to_begin() {
    let s = Sandbox::new();
    let ran = s.run(&[]).exits(0);
    assert!(ran.out.contains("Usage: cachectl"), "{}", ran.out);
    assert!(ran.out.contains("`cachectl up`"), "{}", ran.out);
    assert!(s.run(&["--version"]).exits(0).out.starts_with("cachectl "));
}

#[test]
fn errors_are_json_documents_where_asked_for() {
    let s = Sandbox::new();
    let usage: [&[&str]; 5] = [
        &["-o", "json", "no-such-command"],
        &["up", "--masters", "4", "-o", "json"],
        &["up", "--tui", "--foreground", "--output=json"],
        &["get", "-ojson"],
        &["up", "--config", "no-such-file.toml", "-o", "json"],
    ];
    for line in usage {
        let ran = s.run(line).exits(2);
        assert_eq!(ran.error().0, "USAGE", "{line:?}");
        assert!(ran.out.is_empty());
    }
    let unknown = s.run(&["status", "--name", "nobody", "-o", "json"]).exits(1);
    let (code, message, hint) = unknown.error();
    assert_eq!(code, "NO_CLUSTER");
    assert!(message.contains("nobody") && hint.contains("cachectl"), "{message} {hint}");
    let mut c = s.command(&["get", "k"]);
    let ran: crate::sandbox::Ran = c.env("CACHECTL_OUTPUT", "json").output().unwrap().into();
    assert_eq!(ran.exits(1).error().0, "NO_CLUSTER");
}

#[test]
fn a_cluster_that_does_not_answer_is_unreachable() {
    let s = Sandbox::new();
    // Bound and never listening: refused, and nobody else can take it meanwhile.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    let ran = s.run(&["status", "--masters-addr", &addr, "-o", "json"]).exits(3);
    let doc = ran.json();
    assert_eq!(doc["schema"], 1);
    assert_eq!(doc["state"], "unreachable");
    assert_eq!(doc["leader"], serde_json::Value::Null);
    assert_eq!(doc["masters"][0]["role"], "unreachable");
    let ran = s.run(&["status", "--masters-addr", &addr]).exits(3);
    assert!(ran.out.contains("unreachable"), "{}", ran.out);
    assert_eq!(s.run(&["switchover", "--masters-addr", &addr, "-o", "json"]).exits(3).error().0, "UNREACHABLE");
}

/// Every command that asks a cluster, of one where nobody answers: it ends, fails with a code that says so, and says what to do.
#[test]
fn no_command_hangs_on_a_dead_cluster_or_says_nothing() {
    let s = Sandbox::new();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    for line in [
        "add n9",
        "remove n1 -y",
        "rebalance",
        "switchover",
        "ops",
        "ops show 1",
        "ops pause 1",
        "events",
        "forget n1 --accept-data-loss -y",
        "check",
        "get k",
        "set k v",
        "del k",
        "ttl k",
        "incr k",
        "where k",
        "bench --requests 10",
    ] {
        let words: Vec<&str> = line.split(' ').chain(["--masters-addr", &addr, "-o", "json"]).collect();
        let begun = std::time::Instant::now();
        let ran = s.run(&words);
        assert!(ran.out.is_empty(), "{line}: {}", ran.out);
        let (code, message, hint) = ran.error();
        assert!(matches!(ran.code, 1 | 3 | 4), "{line}: exit {} {code} {message}", ran.code);
        assert!(!hint.is_empty() && begun.elapsed() < std::time::Duration::from_secs(60), "{line}: {hint}");
    }
}

#[test]
fn commands_within_commands_have_help_too() {
    let s = Sandbox::new();
    let mut tree = <cachectl::cli::args::Cli as clap::CommandFactory>::command();
    tree.build();
    let nested =
        tree.get_subcommands().flat_map(|c| c.get_subcommands().map(move |sub| (c.get_name(), sub.get_name())));
    let nested: Vec<(&str, &str)> = nested.filter(|(_, sub)| *sub != "help").collect();
    assert!(nested.len() >= 10, "{nested:?}");
    for (command, sub) in nested {
        let ran = s.run(&[command, sub, "--help"]).exits(0);
        assert!(ran.err.is_empty() && ran.out.contains(&format!("Usage: cachectl {command} {sub}")), "{}", ran.out);
        s.run(&[command, sub, "--no-such-flag"]).exits(2);
    }
}

#[test]
fn a_flag_wins_over_the_environment_that_over_the_file() {
    let s = Sandbox::new();
    let config = s.dir.path().join("config/cachectl");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.toml"), "name = 'from-file'\noutput = 'json'\n").unwrap();
    let name = |c: &mut std::process::Command| {
        let ran: crate::sandbox::Ran = c.output().unwrap().into();
        ran.exits(1).error().1
    };
    assert!(name(&mut s.command(&["status"])).contains("from-file"));
    assert!(name(s.command(&["status"]).env("CACHECTL_NAME", "from-env")).contains("from-env"));
    assert!(name(s.command(&["status", "--name", "from-flag"]).env("CACHECTL_NAME", "from-env")).contains("from-flag"));
    std::fs::write(config.join("config.toml"), "nmae = 'x'\n").unwrap();
    let ran = s.run(&["ls"]).exits(2);
    assert!(ran.err.contains("nmae") && ran.err.contains("`name`"), "{}", ran.err);
}

#[test]
fn a_reader_that_goes_away_is_no_failure_a_full_disk_is() {
    let s = Sandbox::new();
    for line in [&["--help"][..], &["up", "--help"], &["ls", "-o", "json"], &[]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran: crate::sandbox::Ran = s
            .command(line)
            .stdout(Stdio::from(writer))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap()
            .into();
        assert!(ran.err.is_empty(), "{line:?}: {}", ran.err);
        ran.exits(0);
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ran: crate::sandbox::Ran =
        s.command(&["--help"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap().into();
    assert!(ran.err.contains("stdout"), "{}", ran.err);
    ran.exits(1);
}

#[test]
fn colour_only_where_it_is_wanted() {
    let s = Sandbox::new();
    let plain = s.run(&["--help"]).exits(0).out;
    assert!(!plain.contains('\x1b'), "a pipe takes no colour");
    assert!(s.run(&["--color", "always", "--help"]).exits(0).out.contains('\x1b'));
    let mut c = s.command(&["--color", "always", "nope"]);
    assert!(crate::common::text(&c.output().unwrap().stderr).contains('\x1b'));
    assert!(!s.run(&["--color", "never", "nope"]).err.contains('\x1b'));
    // On a terminal NO_COLOR decides; `script` gives the command one.
    let Ok(found) = std::process::Command::new("script").arg("--version").output() else {
        return;
    };
    assert!(found.status.success());
    let on_terminal = |no_color: &str| {
        let line = format!("'{}' no-such-command", crate::common::CACHECTL);
        let o = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("TERM", "xterm")
            .env("NO_COLOR", no_color)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        crate::common::text(&o.stdout)
    };
    assert!(on_terminal("").contains("\x1b[31m"), "an empty NO_COLOR counts as none");
    assert!(!on_terminal("1").contains("\x1b[3"));
}

#[test]
fn servers_bind_to_loopback_only() {
    let s = Sandbox::new();
    for role in ["master", "node"] {
        let data = s.dir.path().join(role).display().to_string();
        let mut line = vec![role, "--listen", "0.0.0.0:0", "--data", &data, "-o", "json"];
        if role == "node" {
            line.extend(["--standalone", "--peer-listen", "127.0.0.1:1"]);
        }
        let ran = s.run(&line).exits(5);
        let (code, _, hint) = ran.error();
        assert_eq!(code, "INSECURE_BIND");
        assert!(hint.contains("--insecure-bind"), "{hint}");
    }
    assert!(s.run(&["node", "-o", "json"]).exits(1).error().2.contains("--masters-addr"));
    let peers = "m1=127.0.0.1:1,m2=127.0.0.1:2,m3=127.0.0.1:3";
    s.run(&["master", "--id", "m9", "--peers", peers]).exits(2);
    s.run(&["master", "--id", "m1", "--peers", "m1=127.0.0.1:1,m2=127.0.0.1:2"]).exits(2);
}
