//! A scripted master and a scripted cache node for tests: they answer each message as their rules say.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::conn::Conn;
use crate::proto::control::Message;
use crate::proto::reply::Proto;
use crate::proto::resp::Decoder;
use crate::proto::value::Value;

/// What a fake does about a message.
#[derive(Debug, Clone)]
pub enum Say {
    /// Answers.
    Answer(Message),
    /// Answers, then closes.
    Last(Message),
    /// Answers and says more of its own accord (id 0).
    Stream(Vec<Message>),
    /// Says this again and again, until the other side closes.
    Repeat(Message),
    /// Closes.
    Close,
    /// Is silent.
    Nothing,
}

type Rule = Box<dyn FnMut(usize, Message) -> Say + Send>;

/// One of them. Gone when dropped.
pub struct Fake {
    pub addr: String,
    rule: Arc<Mutex<Rule>>,
    heard: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Fake {
    /// Listens on a free port. The rule gets the number of the connection (from 1) and the message.
    pub async fn start(rule: impl FnMut(usize, Message) -> Say + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(rule)));
        let heard = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(accept(listener, rule.clone(), heard.clone()));
        Fake { addr, rule, heard, task }
    }

    /// Another rule from now on.
    pub fn rule(&self, rule: impl FnMut(usize, Message) -> Say + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// How many messages came.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, rule: Arc<Mutex<Rule>>, heard: Arc<AtomicUsize>) {
    let mut conns = tokio::task::JoinSet::new();
    let mut number = 0;
    while let Ok((stream, _)) = listener.accept().await {
        number += 1;
        let (rule, heard) = (rule.clone(), heard.clone());
        conns.spawn(async move {
            let mut conn = Conn::new(stream).unwrap();
            while let Ok(Some(incoming)) = conn.reader.recv().await {
                heard.fetch_add(1, Ordering::SeqCst);
                let say = (*rule.lock().unwrap())(number, incoming.message.unwrap());
                let sent = match say {
                    Say::Answer(m) => conn.writer.send("m1", None, incoming.id, &m).await,
                    Say::Last(m) => {
                        let _ = conn.writer.send("m1", None, incoming.id, &m).await;
                        return;
                    }
                    Say::Stream(all) => {
                        for m in &all {
                            conn.writer.queue("m1", None, 0, m).unwrap();
                        }
                        conn.writer.flush().await
                    }
                    Say::Repeat(m) => loop {
                        if let Err(e) = conn.writer.send("m1", None, 0, &m).await {
                            break Err(e);
                        }
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    },
                    Say::Close => return,
                    Say::Nothing => Ok(()),
                };
                if sent.is_err() {
                    return;
                }
            }
        });
    }
}

/// An address where nobody listens.
pub async fn refused_addr() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

/// What a fake node does about a command.
#[derive(Debug, Clone)]
pub enum NodeSay {
    /// Replies.
    Reply(Value),
    /// Replies, then closes.
    Last(Value),
    /// Closes.
    Close,
    /// Is silent.
    Nothing,
}

type NodeRule = Box<dyn FnMut(&[Vec<u8>]) -> NodeSay + Send>;

/// A cache node that speaks RESP2. Gone when dropped.
pub struct FakeNode {
    pub addr: String,
    rule: Arc<Mutex<NodeRule>>,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl FakeNode {
    /// Listens on a free port.
    pub async fn start(rule: impl FnMut(&[Vec<u8>]) -> NodeSay + Send + 'static) -> FakeNode {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let rule: Arc<Mutex<NodeRule>> = Arc::new(Mutex::new(Box::new(rule)));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (r, h) = (rule.clone(), heard.clone());
        let task = tokio::spawn(async move {
            let mut conns = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                conns.spawn(serve(stream, r.clone(), h.clone()));
            }
        });
        FakeNode { addr, rule, heard, task }
    }

    /// Another rule from now on.
    pub fn rule(&self, rule: impl FnMut(&[Vec<u8>]) -> NodeSay + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// The commands that came, but for CLUSTER.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, rule: Arc<Mutex<NodeRule>>, heard: Arc<Mutex<Vec<String>>>) {
    let (mut decoder, mut buf) = (Decoder::default(), Vec::new());
    loop {
        while let Some(n) = decoder.next(&buf).unwrap() {
            let args: Vec<Vec<u8>> = decoder.args(&buf[..n]).iter_from(0).map(<[u8]>::to_vec).collect();
            buf.drain(..n);
            if args[0] != b"CLUSTER" {
                heard.lock().unwrap().push(String::from_utf8(args.join(&b' ')).unwrap());
            }
            let say = (*rule.lock().unwrap())(&args);
            let mut out = Vec::new();
            match &say {
                NodeSay::Reply(v) | NodeSay::Last(v) => v.encode(Proto::Resp2, &mut out),
                NodeSay::Close => return,
                NodeSay::Nothing => {}
            }
            if stream.write_all(&out).await.is_err() || matches!(say, NodeSay::Last(_)) {
                return;
            }
        }
        if !matches!(stream.read_buf(&mut buf).await, Ok(1..)) {
            return;
        }
    }
}
