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

    /// Opens a shell, so that what the screen leaves behind can be looked at.
    fn sit_down(&self, size: (u16, u16)) {
        let (w, h) = (size.0.to_string(), size.1.to_string());
        self.tmux(&["new-session", "-d", "-x", &w, "-y", &h, "-s", "t", "env PS1=READY LC_ALL=C.UTF-8 sh"]);
        self.see("READY");
        let home = self.home.path().display();
        let line = format!(
            "export XDG_STATE_HOME={home} XDG_CONFIG_HOME={home} CACHECTL_TEST_PANIC_KEY=1; stty -a > {home}/before; clear; echo se''ated"
        );
        self.enter(&line);
        self.see("seated");
    }

    /// Types a line to the shell.
    fn enter(&self, line: &str) {
        self.type_in(line);
        self.press(&["Enter"]);
    }

    /// Opens the screen on the cluster.
    fn start(&self) {
        self.tui("");
        self.see("LIVE");
    }

    /// Opens the screen; what the terminal is like afterwards is left in a file.
    fn tui(&self, args: &str) {
        let home = self.home.path().display();
        self.enter(&format!("{CACHECTL} --name {} tui {args}; stty -a > {home}/after; clear; echo LE''FT", self.name));
    }

    fn file(&self, name: &str) -> String {
        self.home.path().join(name).to_string_lossy().into_owned()
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

    /// Waits until the screen is so.
    fn until(&self, what: &str, mut so: impl FnMut(&str) -> bool) {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if so(&screen) {
                return;
            }
            assert!(begun.elapsed() < GENEROUS, "{what} did not show:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn see(&self, words: &str) -> String {
        self.sees(&[words])
    }

    /// Waits for an operation's end to be said on the screen that is open. A ring that changed between plan and order, as
    /// it does when a node is suspected on a busy machine, brings the new plan up: it is agreed to as the first one was.
    fn until_done(&self, words: &str, typed: &str) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains("this is the plan now") && screen.contains("planned at epoch") {
                if !typed.is_empty() {
                    self.type_in(typed);
                }
                self.press(if typed.is_empty() { &["Tab", "Enter"] } else { &["Enter", "Enter"] });
            } else if screen.contains(words) {
                return screen;
            }
            assert!(begun.elapsed() < 2 * GENEROUS, "{words:?} did not show:\n{screen}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The processes of this cluster's screens.
    fn screens(&self) -> Vec<String> {
        let out = Command::new("pgrep").args(["-f", &format!("^{CACHECTL} --name {} tui", self.name)]).output();
        let out = out.expect("pgrep is installed");
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
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
    let load =
        ["bench", "--verify", "--clients", "4", "--keys", "2000", "--rate", "200", "--duration", "600s", "-o", "json"];
    desk.cachectl(&load).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
}

#[test]
fn an_operator_scales_and_switches_with_keys_alone() {
    let desk = Desk::open();
    let load = bench(&desk);
    desk.sit_down((120, 36));
    let recording = desk.file("run.ndjson");
    desk.tui(&format!("--record {recording}"));
    desk.sees(&["LIVE", "[1 Overview]", "3/3 up", "read-write"]);

    // Out to four: the form, the plan over the ring, Apply.
    desk.press(&["+"]);
    desk.sees(&["Scale out", "add 1", "cachectl --name", "add 1"]);
    desk.press(&["Enter"]);
    desk.sees(&["planned at epoch", "n4     0", "[ Cancel ]", "nothing has"]);
    desk.press(&["Tab", "Enter"]);
    desk.press(&["3"]);
    desk.sees(&["Who gives to whom", "scale-out n4", "n1", "slot moves"]);
    desk.press(&["5"]);
    desk.until_done("scale-out n4 is done", "");
    assert_eq!(desk.status()["nodes"].as_array().map(Vec::len), Some(4));
    desk.press(&["1"]);
    desk.sees(&["4/4 up", "127.0.0.1"]);

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
    desk.press(&["5"]);
    desk.until_done("scale-in n4 is done", "n4");
    desk.see("n4 left by plan");
    desk.press(&["1"]);
    desk.see("3/3 up");

    // A key, through the node that has it.
    let set = desk.cachectl(&["set", "user:1000", r#"{"name":"Ada"}"#]).output().expect("it runs");
    assert!(set.status.success());
    desk.press(&["6", "Enter"]);
    desk.type_in("user:1000");
    desk.press(&["Enter"]);
    desk.sees(&["slot      1649", "primary", "backup", "\"name\": \"Ada\""]);

    // No value was lost or wrong in all this.
    let killed = Command::new("kill").args(["-INT", &load.id().to_string()]).status().expect("kill is installed");
    assert!(killed.success());
    let out = load.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&out.stderr);
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {words}"));
    let verified = &report["verify"];
    assert!(verified["checked"].as_u64() > Some(0), "{verified}");
    for bad in ["lost", "stale", "corrupt"] {
        assert_eq!(verified[bad], 0, "{bad}: {verified}");
    }
    desk.press(&["q"]);
    desk.see("LEFT");
    plays_back(&desk, &recording);
}

/// What was recorded of that run: lines that `jq` reads, played on the screen, drawn without one.
fn plays_back(desk: &Desk, recording: &str) {
    let text = std::fs::read_to_string(recording).expect("it was recorded");
    let kinds: Vec<String> = text
        .lines()
        .skip(1)
        .map(|l| {
            serde_json::from_str::<serde_json::Value>(l).expect("JSON")["type"].as_str().expect("a type").to_owned()
        })
        .collect();
    assert!(kinds.iter().filter(|k| *k == "view").count() > 10, "{} lines", kinds.len());

    desk.tui(&format!("--replay {recording} --speed 64"));
    let views = kinds.iter().filter(|k| *k == "view").count();
    let at = |n: usize| format!("view {n} of {views}");
    desk.sees(&["recording", "64x", &at(views)]);
    // A step back and one on; a jump to the beginning and on to the end, where the run ended.
    desk.press(&[","]);
    desk.see(&at(views - 1));
    desk.press(&["."]);
    desk.see(&at(views));
    desk.press(&["Space"]);
    desk.press(&["5"]);
    desk.sees(&[&at(views), "n4 left by plan", "leadership goes from"]);
    desk.press(&["+"]);
    desk.see("this is a recording");
    desk.press(&["q"]);
    desk.see("LEFT");

    for (format, begins) in [("text", " cachectl"), ("ansi", "\x1b["), ("svg", "<svg ")] {
        let args = ["tui", "--replay", recording, "--snapshot", "events", "--size", "120x36", "--format", format];
        let out = desk.cachectl(&args).output().expect("it runs");
        let picture = String::from_utf8(out.stdout).expect("text");
        assert!(out.status.success() && picture.starts_with(begins), "{format}: {picture:.80}");
        // In an SVG blanks are places, not signs.
        assert!(picture.replace(' ', "").contains("n4leftbyplan"), "{format}");
    }
}

#[test]
fn a_newcomers_five_questions_take_four_keys_at_most() {
    /// Keys that one question may take; typed names are not counted.
    const KEYS_MAX: usize = 4;
    let desk = Desk::open();
    desk.sit_down((120, 36));
    desk.start();
    let press = |keys: &[&str]| {
        assert!(keys.len() <= KEYS_MAX, "{keys:?}");
        desk.press(keys);
    };
    let home = || {
        desk.press(&["Escape", "1"]);
        desk.see("[1 Overview]");
    };
    // All that a newcomer reads.
    desk.press(&["?"]);
    let asked = [
        "hottest?      o o ",
        "live?      6 Enter ",
        "done?     + Enter Tab Enter ",
        "change?  4 ",
        "dies?    Down Enter ",
    ];
    desk.sees(&asked);
    desk.press(&["Escape"]);

    // Which node is hottest? The one whose key is asked for all the time; its slot is told, too.
    let key = "hot000000000000";
    let place = desk.cachectl(&["where", key, "-o", "json"]).output().expect("it runs");
    let place: serde_json::Value = serde_json::from_slice(&place.stdout).expect("a document");
    let hottest = format!(" {} ", place["primary"]["id"].as_str().expect("a primary"));
    let load = ["bench", "--clients", "2", "--keys", "1", "--prefix", "hot", "--rate", "300", "--duration", "600s"];
    let mut load = desk.cachectl(&load).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    press(&["o", "o"]);
    desk.see("sort: ops/s");
    desk.until("the hottest node in the first row", |screen| {
        screen.lines().find(|l| l.contains("127.0.0.1:") && l.contains(" up ")).is_some_and(|l| l.contains(&hottest))
    });
    press(&["g", "Enter"]);
    desk.see(&format!("{} 100.0% of its commands", place["slot"]));
    desk.press(&["Escape"]);
    let killed = load.kill().and_then(|()| load.wait());
    assert!(killed.is_ok());
    home();

    // Where does key X live?
    press(&["6", "Enter"]);
    desk.type_in("user:1000");
    press(&["Enter"]);
    desk.sees(&["slot      1649", "primary", "backup"]);
    home();

    // What happens if n2 dies?
    desk.press(&["o", "o", "o", "o", "o", "g"]);
    desk.see("sort: node");
    press(&["Down", "Enter"]);
    desk.sees(&["Node n2", "if it dies", "slots go to"]);
    home();

    // One missed heartbeat is a dot in n2's strip.
    assert!(desk.cachectl(&["chaos", "pause", "n2"]).output().expect("it runs").status.success());
    std::thread::sleep(Duration::from_millis(400));
    assert!(desk.cachectl(&["chaos", "resume", "n2"]).output().expect("it runs").status.success());
    desk.until("a dot in n2's strip", |screen| {
        screen.lines().any(|l| l.contains(" n2 ") && l.contains("127.0.0.1:") && l.contains('·'))
    });

    // Add a node, and tell when it is done.
    let (form, agree) = (["+", "Enter"], ["Tab", "Enter"]);
    assert!(form.len() + agree.len() <= KEYS_MAX);
    press(&form);
    desk.see("planned at epoch");
    press(&agree);
    desk.until_done("scale-out n4 is done", "");

    // Why did the master change?
    let out = desk.cachectl(&["switchover"]).output().expect("it runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    press(&["4"]);
    desk.sees(&["Who led when, and why it ended", "handed over to", "asked for by"]);
    desk.press(&["q"]);
    desk.see("LEFT");
}

#[test]
fn the_screen_outlives_all_masters() {
    let desk = Desk::open();
    desk.sit_down((120, 36));
    desk.start();
    let process = desk.screens();
    let epoch = |screen: &str| {
        let (_, rest) = screen.lines().next()?.split_once("epoch ")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    let highest = epoch(&desk.screen()).expect("an epoch in the header");
    let killed = Instant::now();
    for m in ["m1", "m2", "m3"] {
        let out = desk.cachectl(&["chaos", "kill", m]).output().expect("it runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let all_killed = Instant::now();
    desk.see("STALE");
    let stale = (killed.elapsed(), all_killed.elapsed());
    desk.sees(&["MASTER LOST", "LOST"]);
    let lost = (killed.elapsed(), all_killed.elapsed());
    // Every screen comes at once, help too, and an action says why it can't be.
    for (key, tab) in
        [("2", "[2 Ring]"), ("3", "[3 Migr"), ("4", "[4 Masters"), ("5", "[5 Events"), ("1", "[1 Overview")]
    {
        let pressed = Instant::now();
        desk.press(&[key]);
        desk.sees(&[tab, "MASTER LOST"]);
        eprintln!("{tab} {:?} after its key", pressed.elapsed());
    }
    desk.press(&["+"]);
    desk.see("no master");
    assert_eq!(desk.screens(), process, "it is the same process");
    // `up` starts what is missing, and waits; the screen is looked at meanwhile.
    let back = Instant::now();
    let mut up = desk.cachectl(&["up", "--wait", "120s"]).stdout(Stdio::null()).spawn().expect("it runs");
    let mut seen = highest;
    desk.until("a live link", |screen| {
        let now = epoch(screen).expect("an epoch in the header");
        assert!(now >= seen, "epoch {now} after {seen}");
        seen = now;
        screen.contains("LIVE")
    });
    eprintln!(
        "from the first, from the last kill: stale {stale:?}, banner {lost:?}; live {:?} after `up` was begun",
        back.elapsed()
    );
    assert!(up.wait().expect("a child of ours").success());
    assert_eq!(desk.screens(), process, "it is the same process");
    desk.press(&["q"]);
    desk.see("LEFT");
}

#[test]
fn however_it_ends_the_shell_is_as_it_was() {
    let desk = Desk::open();
    desk.sit_down((80, 24));
    let read = |name: &str| std::fs::read_to_string(desk.file(name)).expect("stty wrote it");
    let before = read("before");
    for how in ["q", "TERM", "HUP", "panic", "C-c"] {
        desk.start();
        let processes = desk.screens();
        assert_eq!(processes.len(), 1);
        match how {
            "q" | "C-c" => desk.press(&[how]),
            "panic" => desk.press(&["F12"]),
            signal => {
                let kill = Command::new("kill").args([&format!("-{signal}"), &processes[0]]).status().expect("kill");
                assert!(kill.success());
            }
        }
        desk.see("LEFT");
        assert_eq!(read("after"), before, "{how}");
        std::fs::remove_file(desk.file("after")).expect("it was there");
        assert!(desk.screens().is_empty(), "{how}: nothing spins on");
        // The shell takes a line and shows what it says.
        desk.enter("clear; echo us''able");
        desk.see("usable");
        desk.enter("clear");
    }
    // Another window of the same terminal is closed under it: the process goes, this shell does not notice.
    let line = format!("env LC_ALL=C.UTF-8 XDG_STATE_HOME={0} XDG_CONFIG_HOME={0} ", desk.home.path().display());
    let line = format!("{line}{CACHECTL} --name {} tui", desk.name);
    desk.tmux(&["new-window", "-d", "-t", "t:7", &line]);
    desk.until("a screen in the other window", |_| !desk.screens().is_empty());
    desk.tmux(&["kill-window", "-t", "t:7"]);
    desk.until("its end", |_| desk.screens().is_empty());
    desk.enter(&format!("stty -a > {}; echo us''able", desk.file("after")));
    desk.see("usable");
    assert_eq!(read("after"), before, "closed");
}
