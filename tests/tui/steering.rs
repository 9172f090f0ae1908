//! A real terminal (tmux), a real cluster, keys only: what an operator does and what a newcomer asks.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::common::{CACHECTL, free_block};

/// Longer than any machine should need; only a failing test waits so long.
const GENEROUS: Duration = Duration::from_secs(180);

/// One cluster at a time: two cores carry no more, and elections are not what is looked at here.
static ALONE: Mutex<()> = Mutex::new(());

/// A cluster of three masters and three nodes with the screen open on it, on a terminal of 120 by 36.
struct Desk {
    home: tempfile::TempDir,
    name: String,
    _alone: MutexGuard<'static, ()>,
}

impl Desk {
    fn open() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let home = tempfile::tempdir().expect("a temporary directory");
        let base = free_block();
        let desk = Self { home, name: format!("screen-{base}"), _alone: alone };
        let up = desk.cachectl(&["up", "--base-port", &base.to_string(), "--wait", "120s"]).output().expect("it runs");
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        desk
    }

    fn cachectl(&self, args: &[&str]) -> Command {
        let mut c = Command::new(CACHECTL);
        c.env("XDG_STATE_HOME", self.home.path()).env("XDG_CONFIG_HOME", self.home.path()).env_remove("NO_COLOR");
        c.args(["--name", &self.name]).args(args);
        c
    }

    fn tmux(&self, args: &[&str]) -> String {
        let out = Command::new("tmux")
            .env_remove("TMUX")
            .args(["-L", &self.name, "-f", "/dev/null"])
            .args(args)
            .output()
            .expect("tmux is installed");
        assert!(out.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Opens the screen in a shell, so that what it leaves behind can be looked at.
    fn sit_down(&self, size: (u16, u16)) {
        let (w, h) = (size.0.to_string(), size.1.to_string());
        self.tmux(&["new-session", "-d", "-x", &w, "-y", &h, "-s", "t", "env PS1=READY LC_ALL=C.UTF-8 sh"]);
        self.see("READY");
        let home = self.home.path().display();
        let line = format!(
            "export XDG_STATE_HOME={home} XDG_CONFIG_HOME={home} CACHECTL_TEST_PANIC_KEY=1; stty -a > {home}/before; clear"
        );
        self.tmux(&["send-keys", "-t", "t", "-l", &line]);
        self.press(&["Enter"]);
        self.start();
    }

    fn start(&self) {
        let home = self.home.path().display();
        let line = format!("{CACHECTL} --name {} tui; stty -a > {home}/after; clear; echo LE''FT", self.name);
        self.tmux(&["send-keys", "-t", "t", "-l", &line]);
        self.press(&["Enter"]);
        self.see("LIVE");
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", "t"], keys].concat());
    }

    fn type_in(&self, text: &str) {
        self.tmux(&["send-keys", "-t", "t", "-l", text]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "t"])
    }

    /// Waits until all these words are on the screen at once; returns it.
    fn sees(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if words.iter().all(|w| screen.contains(w)) {
                return screen;
            }
            assert!(begun.elapsed() < GENEROUS, "{words:?} did not show:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn see(&self, words: &str) -> String {
        self.sees(&[words])
    }

    /// Waits on the Events screen for an operation's end. A ring that changed between plan and order, as it does when a
    /// node is suspected on a busy machine, brings the new plan up: it is agreed to as the first one was.
    fn until_done(&self, words: &str, typed: &str) {
        let begun = Instant::now();
        self.press(&["5"]);
        loop {
            let screen = self.screen();
            if screen.contains("this is the plan now") && screen.contains("planned at epoch") {
                if !typed.is_empty() {
                    self.type_in(typed);
                }
                self.press(if typed.is_empty() { &["Tab", "Enter", "5"] } else { &["Enter", "Enter", "5"] });
            } else if screen.contains(words) {
                return;
            }
            assert!(begun.elapsed() < 2 * GENEROUS, "{words:?} did not show:\n{screen}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn status(&self) -> serde_json::Value {
        let out = self.cachectl(&["status", "-o", "json"]).output().expect("it runs");
        serde_json::from_slice(&out.stdout).expect("a document")
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.name, "kill-server"]).output();
        let _ = self.cachectl(&["down", "--purge"]).output();
    }
}

/// Load that checks every value, for as long as it is wanted.
fn bench(desk: &Desk) -> Child {
    let load = ["bench", "--verify", "--clients", "4", "--keys", "2000", "--rate", "200", "--duration", "600s", "-q"];
    desk.cachectl(&load).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs")
}

#[test]
fn an_operator_scales_and_switches_with_keys_alone() {
    let desk = Desk::open();
    let load = bench(&desk);
    desk.sit_down((120, 36));

    // Out to four: the form, the plan over the ring, Apply.
    desk.press(&["+"]);
    desk.sees(&["Scale out", "add 1"]);
    desk.press(&["Enter"]);
    desk.sees(&["planned at epoch", "n4     0", "[ Cancel ]", "nothing has"]);
    desk.press(&["Tab", "Enter"]);
    desk.press(&["3"]);
    desk.see("Who gives to whom");
    desk.until_done("scale-out n4 is done", "");
    assert_eq!(desk.status()["nodes"].as_array().map(Vec::len), Some(4));

    // The lead goes to whom the dialog names.
    let before = desk.status()["leader"].as_str().expect("somebody leads").to_owned();
    desk.press(&["s"]);
    desk.sees(&["Switch master", "[ Cancel ]", "switchover --to"]);
    desk.press(&["Right", "Enter"]);
    desk.see("handed over in");
    assert_ne!(desk.status()["leader"].as_str(), Some(before.as_str()));
    desk.press(&["4"]);
    desk.sees(&["Who led when", "handed over to", "asked for by"]);

    // In to three: the wrong name does nothing, the right one does.
    desk.press(&["1", "G", "-", "Enter"]);
    desk.sees(&["planned at epoch", "to unlock: n4"]);
    desk.type_in("n3");
    desk.press(&["Enter"]);
    desk.see("type n4 to unlock");
    desk.press(&["BSpace"]);
    desk.type_in("4");
    desk.press(&["Enter", "Enter"]);
    desk.until_done("scale-in n4 is done", "n4");
    desk.press(&["5"]);
    desk.see("n4 left by plan");

    // A key, through the node that has it.
    let set = desk.cachectl(&["set", "user:1000", r#"{"name":"Ada"}"#]).output().expect("it runs");
    assert!(set.status.success());
    desk.press(&["6", "Enter"]);
    desk.type_in("user:1000");
    desk.press(&["Enter"]);
    desk.sees(&["slot      1649", "primary", "\"name\": \"Ada\""]);

    // No value was lost or wrong in all this.
    let killed = Command::new("kill").args(["-INT", &load.id().to_string()]).status().expect("kill is installed");
    assert!(killed.success());
    let out = load.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!words.contains("wrong") && !words.contains("lost"), "{words}");

    desk.press(&["q"]);
    desk.see("LEFT");
}

#[test]
fn a_newcomers_five_questions_take_four_keys_at_most() {
    let desk = Desk::open();
    desk.sit_down((120, 36));
    // Where does a key live?
    desk.press(&["6", "Enter"]);
    desk.type_in("user:1000");
    desk.press(&["Enter"]);
    desk.sees(&["slot      1649", "primary", "backup"]);
    // Which node is hottest?
    desk.press(&["1"]);
    desk.see("[1 Overview]");
    desk.press(&["o", "o", "o", "o"]);
    desk.see("sort: ops/s");
    // What happens if n2 dies?
    desk.press(&["o", "o", "o"]);
    desk.see("sort: node");
    desk.press(&["g", "j", "Enter"]);
    desk.sees(&["Node n2", "if it dies", "slots go to"]);
    desk.press(&["Escape"]);
    // Add a node, and tell when it is done.
    desk.see("sort: node");
    desk.press(&["+", "Enter"]);
    desk.see("planned at epoch");
    desk.press(&["Tab", "Enter"]);
    desk.until_done("scale-out n4 is done", "");
    desk.press(&["1"]);
    // Why did the master change?
    let out = desk.cachectl(&["switchover"]).output().expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    desk.press(&["4"]);
    desk.sees(&["Who led when, and why it ended", "handed over to"]);
    desk.press(&["q"]);
    desk.see("LEFT");
}

#[test]
fn however_it_ends_the_shell_is_as_it_was() {
    let desk = Desk::open();
    desk.sit_down((80, 24));
    let read = |name: &str| std::fs::read_to_string(desk.home.path().join(name)).expect("stty wrote it");
    let before = read("before");
    let pid = || {
        let out =
            Command::new("pgrep").args(["-f", &format!("{} tui", desk.name)]).output().expect("pgrep is installed");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        // The shell that was told to start it has the words in no argument of its own.
        text.lines().last().map(str::to_owned)
    };
    for how in ["q", "TERM", "HUP", "panic", "C-c"] {
        if how != "q" {
            desk.start();
        }
        match how {
            "q" | "C-c" => desk.press(&[how]),
            "panic" => desk.press(&["F12"]),
            signal => {
                let pid = pid().expect("it runs");
                assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill").success());
            }
        }
        desk.see("LEFT");
        assert_eq!(read("after"), before, "{how}");
        std::fs::remove_file(desk.home.path().join("after")).expect("it was there");
        assert_eq!(pid(), None, "{how}: nothing spins on");
        desk.tmux(&["send-keys", "-t", "t", "-l", "clear"]);
        desk.press(&["Enter"]);
    }
}
