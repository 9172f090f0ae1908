//! The real program on a real (pseudo) terminal: taken over, drawn, given back, however it ends.
//!
//! `script` (util-linux) makes the terminal and is its session's leader, as a terminal emulator would be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cachectl::proto::control::{Message, encode};

use crate::fixture;

/// Longer than any machine should need; only a failing test waits so long.
const GENEROUS: Duration = Duration::from_secs(120);
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// The program on a terminal of its own.
pub struct OnTerminal {
    script: Child,
    keys: Option<ChildStdin>,
    output: Arc<Mutex<Vec<u8>>>,
    home: tempfile::TempDir,
}

impl OnTerminal {
    fn start(args: &str) -> Self {
        Self::run(&format!("exec {} {args}", env!("CARGO_BIN_EXE_cachectl")), (80, 24))
    }

    /// Runs a shell's line that becomes the program, on a terminal of this size.
    pub fn run(line: &str, (columns, rows): (u16, u16)) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let pid = home.path().join("pid");
        let line = format!("stty rows {rows} cols {columns}; export PID={}; echo $$ > $PID; {line}", pid.display());
        let mut script = Command::new("script")
            .args(["-qfec", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .env("XDG_STATE_HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script of util-linux is installed");
        let keys = script.stdin.take();
        let mut out = script.stdout.take().expect("piped");
        let output = Arc::new(Mutex::new(Vec::new()));
        let into = output.clone();
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut buf) {
                into.lock().expect("not poisoned").extend_from_slice(&buf[..n]);
            }
        });
        Self { script, keys, output, home }
    }

    /// Its process, below `/proc`.
    pub fn pid(&self) -> PathBuf {
        let text = wait_for("a pid", || {
            std::fs::read_to_string(self.home.path().join("pid")).ok().filter(|t| t.ends_with('\n'))
        });
        Path::new("/proc").join(text.trim())
    }

    pub fn press(&mut self, keys: &str) {
        let stdin = self.keys.as_mut().expect("open");
        stdin.write_all(keys.as_bytes()).expect("the terminal takes keys");
        stdin.flush().expect("the terminal takes keys");
    }

    /// Bytes and frames that reached the terminal so far.
    pub fn drawn(&self) -> (usize, usize) {
        let output = self.output.lock().expect("not poisoned");
        let begin = b"\x1b[?2026h";
        (output.len(), output.windows(begin.len()).filter(|w| w == begin).count())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("not poisoned")).into_owned()
    }

    /// Waits until these words were drawn after the first `from` bytes.
    pub fn see(&self, words: &str, from: usize) {
        wait_for(words, || self.text().get(from..).is_some_and(|t| t.contains(words)).then_some(()));
    }

    fn signal(&self, name: &str) {
        let pid = self.pid();
        let pid = pid.file_name().and_then(|p| p.to_str()).expect("a number");
        let sent = Command::new("kill").args([&format!("-{name}"), pid]).status().expect("kill is installed");
        assert!(sent.success());
    }

    pub fn ended(&mut self) -> ExitStatus {
        wait_for("the end", || self.script.try_wait().expect("a child of ours"))
    }

    /// The last thing the terminal was told is to be as it was before.
    fn assert_given_back(&self) {
        let text = self.text();
        let (enter, leave) = (text.rfind(ENTER), text.rfind(LEAVE));
        assert!(enter.is_some() && leave > enter, "the other screen was left: {:?}", tail(&text));
        assert!(text.rfind(SHOW_CURSOR) > enter, "the cursor is back: {:?}", tail(&text));
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

fn tail(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(300);
    text.chars().skip(skip).collect()
}

pub fn wait_for<T>(what: &str, mut get: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(t) = get() {
            return t;
        }
        assert!(begun.elapsed() < GENEROUS, "no {what:?} within {GENEROUS:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A master that streams one view for as long as it lives.
struct Master {
    addr: String,
    alive: Arc<AtomicBool>,
}

impl Master {
    fn start(addr: &str) -> Self {
        let listener = wait_for("a free port", || TcpListener::bind(addr).ok());
        let addr = listener.local_addr().expect("bound").to_string();
        let alive = Arc::new(AtomicBool::new(true));
        let until = alive.clone();
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        std::thread::spawn(move || {
            while until.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let until = until.clone();
                        std::thread::spawn(move || stream_views(&stream, &until));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(10)),
                }
            }
        });
        Self { addr, alive }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::SeqCst);
    }
}

fn stream_views(stream: &TcpStream, until: &AtomicBool) {
    let _ = stream.set_nonblocking(false);
    let mut asked = String::new();
    if BufReader::new(stream).read_line(&mut asked).is_err() {
        return;
    }
    let line = encode("m1", None, 0, &Message::StatusView(Box::new(fixture::healthy())));
    let mut out = stream;
    while until.load(Ordering::SeqCst) && out.write_all(&line).is_ok() {
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn it_draws_and_gives_the_terminal_back() {
    let mut t = OnTerminal::start("tui");
    t.see("No cluster is known here.", 0);
    assert!(t.text().contains("\x1b[?2026h"), "frames are synchronized updates");
    t.press("q");
    assert!(t.ended().success());
    t.assert_given_back();
}

#[test]
fn signals_end_it_politely() {
    for name in ["TERM", "HUP", "INT"] {
        let mut t = OnTerminal::start("tui");
        t.see("No cluster is known here.", 0);
        t.signal(name);
        assert!(t.ended().success(), "{name}");
        t.assert_given_back();
    }
}

#[test]
fn it_outlives_its_masters_and_finds_them_again() {
    let master = Master::start("127.0.0.1:0");
    let addr = master.addr.clone();
    let mut t = OnTerminal::start(&format!("--masters-addr {addr} tui"));
    t.see("LIVE", 0);
    t.see("127.0.0.1:7203", 0);
    let before = t.text().len();
    drop(master);
    t.see("MASTER", before);
    let lost = t.text().len();
    let _again = Master::start(&addr);
    t.see("LIVE", lost);
    t.press("q");
    assert!(t.ended().success());
    t.assert_given_back();
}

/// The terminal goes away under the screen: a process that neither ends nor sleeps would be the worst of all ends.
fn ends_with_its_terminal(line: &str) {
    let mut t = OnTerminal::run(line, (80, 24));
    t.see("No cluster is known here.", 0);
    let process = t.pid();
    t.script.kill().expect("ours");
    t.ended();
    wait_for("the end of a process without a terminal", || (!process.exists()).then_some(()));
}

#[test]
fn it_ends_with_its_terminal() {
    ends_with_its_terminal(&format!("exec {} tui", env!("CARGO_BIN_EXE_cachectl")));
}

#[test]
fn it_ends_with_a_terminal_whose_hangup_it_is_not_told_of() {
    // In another session nobody sends SIGHUP; under `nohup` it is ignored.
    let program = env!("CARGO_BIN_EXE_cachectl");
    ends_with_its_terminal(&format!("exec setsid -w sh -c 'echo $$ > $PID; exec {program} tui'"));
    ends_with_its_terminal(&format!("trap '' HUP; exec {program} tui"));
}

#[test]
fn nonsense_from_a_master_is_a_lost_link_and_no_more() {
    // What no type of ours can hold: an age below zero, a number that is none, a line that is no message.
    let view = encode("m1", None, 0, &Message::StatusView(Box::new(fixture::healthy())));
    let view = String::from_utf8(view).expect("JSON");
    let age = view.find("\"heartbeat_age_ms\":").expect("a field") + "\"heartbeat_age_ms\":".len();
    let mut negative = view.clone();
    negative.insert(age, '-');
    let nan = view.replacen("\"weight\":1.0", "\"weight\":NaN", 1);
    assert_ne!(nan, view);
    for nonsense in [negative, nan, "\x1b[2J\u{202e}{\n".to_owned()] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(nonsense.as_bytes());
                let _ = stream.read(&mut [0; 4096]);
            }
        });
        let mut t = OnTerminal::start(&format!("--masters-addr {addr} tui"));
        t.see("CONNECTING", 0);
        t.see("next try", 0);
        t.press("?");
        t.see("Help", 0);
        assert!(!t.text().contains("\x1b[2J\u{202e}"), "nothing of it reaches the terminal");
        t.press("q");
        t.press("q");
        assert!(t.ended().success());
        t.assert_given_back();
    }
}

#[test]
fn without_a_terminal_it_says_so() {
    let out = Command::new(env!("CARGO_BIN_EXE_cachectl")).arg("tui").stdin(Stdio::null()).output().expect("it runs");
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("terminal"));
    assert!(out.stdout.is_empty());
}
