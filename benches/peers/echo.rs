//! The floor: commands are told apart by one byte and counted by their length, replies are canned. No parser, no keys, no
//! memory touched but two buffers.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

/// Bytes of a GET of a 16-byte key, as the generator writes it.
const GET: usize = "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000000\r\n".len();
/// What is read at once.
const READ: usize = 64 << 10;
/// The listener's mark among the events.
const LISTENER: u64 = u64::MAX;

struct Client {
    stream: TcpStream,
    /// The beginning of a command.
    rest: Vec<u8>,
    /// Replies that the socket did not take.
    out: Vec<u8>,
}

/// Serves until it is killed; values have `size` bytes.
pub fn serve(port: u16, size: usize) -> io::Result<()> {
    let set = format!("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n${size}\r\n").len() + size + 2;
    let value = [format!("${size}\r\n").into_bytes(), vec![b'x'; size], b"\r\n".to_vec()].concat();
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
    let mut buf = vec![0; READ];
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in &events {
            let n = event.data.u64();
            if n == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    epoll::add(&poll, &stream, EventData::new_u64(clients.len() as u64), EventFlags::IN)?;
                    clients.push(Some(Client { stream, rest: Vec::new(), out: Vec::new() }));
                }
                continue;
            }
            let Some(slot) = clients.get_mut(n as usize) else { continue };
            if slot.as_mut().is_some_and(|c| turn(c, &mut buf, set, &value).is_err()) {
                *slot = None;
            }
        }
    }
}

/// One read, one write.
fn turn(c: &mut Client, buf: &mut [u8], set: usize, value: &[u8]) -> io::Result<()> {
    let kept = c.rest.len();
    buf[..kept].copy_from_slice(&c.rest);
    c.rest.clear();
    let len = match c.stream.read(&mut buf[kept..]) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(n) => kept + n,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => kept,
        Err(e) => return Err(e),
    };
    let mut at = 0;
    // The generator asks first who this is; any error will do.
    if buf[..len].starts_with(b"*2\r\n$4\r\nINFO") {
        at = len;
        c.out.extend_from_slice(b"-ERR echo\r\n");
    }
    while let Some(kind) = buf[at..len].get(1) {
        let need = if *kind == b'2' { GET } else { set };
        if len - at < need {
            break;
        }
        at += need;
        c.out.extend_from_slice(if *kind == b'2' { value } else { b"+OK\r\n" });
    }
    c.rest.extend_from_slice(&buf[at..len]);
    while !c.out.is_empty() {
        match c.stream.write(&c.out) {
            Ok(n) if n == c.out.len() => c.out.clear(),
            Ok(n) => drop(c.out.drain(..n)),
            // The generator reads what it asked for: soon there is room.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
