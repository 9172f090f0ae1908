//! A cache that lies where a test tells it to: over real sockets, one thread a connection.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use cachectl::proto::resp::{Decoder, Limits};

/// What a test may do to a command before it is answered; `None` = answer it truthfully.
pub type Lie = dyn Fn(&mut Store, &[Vec<u8>]) -> Option<Vec<u8>> + Send + Sync;

/// What is held, and what was asked.
#[derive(Default)]
pub struct Store {
    pub keys: HashMap<Vec<u8>, Vec<u8>>,
    pub gets: u64,
    pub sets: u64,
}

/// A running one; its threads end with the test's process.
pub struct FakeCache {
    pub addr: SocketAddr,
    pub store: Arc<Mutex<Store>>,
}

impl FakeCache {
    pub fn start(lie: impl Fn(&mut Store, &[Vec<u8>]) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, lie)
    }

    pub fn on(
        listener: TcpListener,
        lie: impl Fn(&mut Store, &[Vec<u8>]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let (shared, lie): (_, Arc<Lie>) = (store.clone(), Arc::new(lie));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (store, lie) = (shared.clone(), lie.clone());
                std::thread::spawn(move || serve(stream, &store, &*lie));
            }
        });
        Self { addr, store }
    }
}

fn serve(mut stream: TcpStream, store: &Mutex<Store>, lie: &Lie) {
    let (mut decoder, mut buf) = (Decoder::new(Limits::default()), Vec::new());
    let mut chunk = [0; 16 << 10];
    loop {
        while let Some(len) = decoder.next(&buf).expect("the generator speaks RESP") {
            let args: Vec<Vec<u8>> = decoder.args(&buf[..len]).iter_from(0).map(<[u8]>::to_vec).collect();
            buf.drain(..len);
            let answer = {
                let mut store = store.lock().unwrap();
                match lie(&mut store, &args) {
                    Some(answer) => answer,
                    None => truth(&mut store, &args),
                }
            };
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => buf.extend_from_slice(&chunk[..n]),
            _ => return,
        }
    }
}

/// As an honest cache answers.
pub fn truth(store: &mut Store, args: &[Vec<u8>]) -> Vec<u8> {
    match args[0].as_slice() {
        b"GET" => {
            store.gets += 1;
            store.keys.get(&args[1]).map_or(b"$-1\r\n".to_vec(), |v| bulk(v))
        }
        b"SET" => {
            store.sets += 1;
            store.keys.insert(args[1].clone(), args[2].clone());
            b"+OK\r\n".to_vec()
        }
        b"INFO" => bulk(b"redis_version:7.0.0\r\ncluster_enabled:0\r\nevicted_keys:0\r\n"),
        other => panic!("not expected: {}", String::from_utf8_lossy(other)),
    }
}

/// A byte string.
pub fn bulk(value: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}
