//! The terminal itself: taken over as a whole, drawn in one write a frame, and given back however the process ends.

use std::cell::RefCell;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture, Event};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Position, Rect};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::event::Msg;
use super::model::Model;
use super::screen;

/// Input events waiting for the model: a paste of a screenful of keys, not more.
const INPUT_MAX: usize = 256;

/// Whether the terminal is ours now, so that the panic hook knows whether to give it back.
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// Collects a frame, so that it reaches the terminal in one write.
#[derive(Clone, Default)]
struct Frame(Rc<RefCell<Vec<u8>>>);

impl Write for Frame {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// The frame is not over yet.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The terminal, ours until dropped.
pub struct Tty {
    terminal: Terminal<CrosstermBackend<Frame>>,
    frame: Frame,
    mouse: bool,
}

impl Tty {
    /// Takes the terminal over. From here on it is given back on drop and on panic.
    pub fn take(mouse: bool) -> io::Result<Tty> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                give_back();
                before(info);
            }));
        });
        let frame = Frame::default();
        let terminal = Terminal::new(CrosstermBackend::new(frame.clone()))?;
        let mut tty = Tty { terminal, frame, mouse };
        tty.enter()?;
        Ok(tty)
    }

    fn enter(&mut self) -> io::Result<()> {
        TAKEN.store(true, Ordering::SeqCst);
        enable_raw_mode()?;
        let mut out = io::stdout();
        execute!(out, EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)?;
        if self.mouse {
            execute!(out, EnableMouseCapture)?;
        }
        Ok(())
    }

    /// Columns and rows.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        crossterm::terminal::size()
    }

    /// Draws the model: only what changed since the last frame reaches the terminal, as one synchronized update.
    pub fn draw(&mut self, model: &Model) -> io::Result<()> {
        queue!(self.frame, BeginSynchronizedUpdate)?;
        self.terminal.draw(|f| {
            let area = f.area();
            if let Some((x, y)) = screen::draw(model, f.buffer_mut(), area) {
                f.set_cursor_position(Position { x, y });
            }
        })?;
        queue!(self.frame, EndSynchronizedUpdate)?;
        self.commit()
    }

    /// Forgets what the terminal is thought to show, so that the next frame draws every cell. (`Terminal::clear` would
    /// ask for the cursor's position and wait for the answer among the keys.)
    pub fn forget(&mut self) -> io::Result<()> {
        let (w, h) = self.size()?;
        self.terminal.resize(Rect::new(0, 0, w, h))
    }

    /// Puts a text on the clipboard of whoever sits at the terminal (OSC 52).
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        write!(self.frame, "\x1b]52;c;{}\x07", STANDARD.encode(text))?;
        self.commit()
    }

    /// Stops the process as Ctrl-Z does; returns when it is continued, with the terminal taken again.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TSTP)?;
        self.retake()
    }

    /// Takes the terminal again after something else had it.
    pub fn retake(&mut self) -> io::Result<()> {
        self.enter()?;
        self.forget()
    }

    fn commit(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let mut frame = self.frame.0.borrow_mut();
        out.write_all(&frame)?;
        frame.clear();
        out.flush()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back as it was. Errors are of no use here: there is nowhere left to say them.
fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = execute!(out, EndSynchronizedUpdate, DisableMouseCapture, DisableBracketedPaste);
    let _ = execute!(out, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

/// Whether the terminal behind standard input went away.
pub fn is_gone() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok() && gone(fds[0].revents())
}

fn gone(flags: PollFlags) -> bool {
    flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}

/// A thread that reads keys. A thread and not crossterm's stream, because crossterm's reader loops for ever on a
/// terminal that hung up: here it may only spin until the process has left, and the screen goes on meanwhile.
pub struct Input {
    /// What was read.
    pub events: mpsc::Receiver<Msg>,
    /// Closing it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Input {
    /// Starts reading.
    pub fn start() -> io::Result<Input> {
        let (tx, events) = mpsc::channel(INPUT_MAX);
        let (wake, stop) = io::pipe()?;
        let thread = std::thread::Builder::new().name("tui-input".to_owned()).spawn(move || read(&tx, &wake))?;
        Ok(Input { events, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.stop = None;
        self.events.close();
        // A thread caught in a dead terminal never ends; all others do at once.
        if let Some(thread) = self.thread.take().filter(|_| !is_gone()) {
            let _ = thread.join();
        }
    }
}

fn read(tx: &mpsc::Sender<Msg>, wake: &PipeReader) {
    let stdin = io::stdin();
    loop {
        let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
            Ok(_) => {}
        }
        let (key, stop) = (fds[0].revents(), fds[1].revents());
        if !stop.is_empty() {
            return;
        }
        if gone(key) {
            break;
        }
        while let Ok(true) = crossterm::event::poll(Duration::ZERO) {
            let msg = match crossterm::event::read() {
                Ok(Event::Key(key)) => Msg::Key(key),
                Ok(Event::Mouse(mouse)) => Msg::Mouse(mouse),
                Ok(Event::Paste(text)) => Msg::Paste(text),
                Ok(Event::Resize(w, h)) => Msg::Resize(w, h),
                Ok(_) => continue,
                Err(_) => break,
            };
            if tx.blocking_send(msg).is_err() {
                return;
            }
        }
    }
    let _ = tx.blocking_send(Msg::Terminate);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::event::{LinkEvent, Now};
    use crate::tui::fixture;
    use crate::tui::model::Setup;
    use crate::tui::update::update;

    /// What a frame writes between its brackets; the terminal has a fixed size, so none is needed.
    fn frame(terminal: &mut Terminal<CrosstermBackend<Frame>>, frame: &Frame, model: &Model) -> usize {
        let drawn = terminal.draw(|f| {
            let area = f.area();
            screen::draw(model, f.buffer_mut(), area);
        });
        assert!(drawn.is_ok());
        std::mem::take(&mut *frame.0.borrow_mut()).len()
    }

    #[test]
    fn only_cells_that_changed_are_written() {
        let out = Frame::default();
        let viewport = ratatui::Viewport::Fixed(Rect::new(0, 0, 120, 36));
        let options = ratatui::TerminalOptions { viewport };
        let mut terminal = Terminal::with_options(CrosstermBackend::new(out.clone()), options).unwrap();
        let mut model = Model::new(Setup { masters: vec!["127.0.0.1:7101".into()], ..Setup::default() });
        update(&mut model, Msg::Resize(120, 36));
        update(&mut model, Msg::Link(LinkEvent::View(Box::new(fixture::busy()))));
        let whole = frame(&mut terminal, &out, &model);
        assert!(whole > 4_000, "{whole} bytes");
        let same = frame(&mut terminal, &out, &model);
        let second = fixture::WALL_MS + 1000;
        update(&mut model, Msg::Tick(Now { mono_ms: 200, wall_ms: second }));
        let clock = frame(&mut terminal, &out, &model);
        // Hiding the cursor and a reset of style are all that is left of an unchanged frame.
        assert!(same < 40, "{same} bytes for nothing");
        assert!(clock < 600, "{clock} bytes for a clock and a few ages");
    }
}
