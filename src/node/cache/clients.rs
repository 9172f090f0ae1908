//! The open client connections of a node: who they are, and how to wake or end them from elsewhere.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::command::{ClientInfo, ConnState, Spec};
use super::shard::lock;
use super::waiter::Waiter;

/// One connection, as its own task shares it.
#[derive(Debug)]
pub struct Client {
    /// Wakes its task.
    pub waiter: Arc<Waiter>,
    /// It is to end.
    pub kill: AtomicBool,
    /// When its last command came, on the TTL clock.
    active_ms: AtomicU64,
    last_cmd: Mutex<Option<&'static Spec>>,
    state: Mutex<ConnState>,
}

impl Client {
    /// What the connection's own commands changed (HELLO, CLIENT SETNAME, …); called when such a command ran.
    pub fn publish(&self, state: &ConnState) {
        lock(&self.state).clone_from(state);
    }

    /// A turn ended.
    pub fn active(&self, now_ms: u64, last: Option<&'static Spec>) {
        self.active_ms.store(now_ms, Ordering::Relaxed);
        *lock(&self.last_cmd) = last;
    }

    fn info(&self, now_ms: u64) -> ClientInfo {
        let mut state = lock(&self.state).clone();
        state.active_ms = self.active_ms.load(Ordering::Relaxed);
        state.last_cmd = *lock(&self.last_cmd);
        state.info(now_ms)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Clients {
    all: Mutex<BTreeMap<u64, Arc<Client>>>,
    /// Those that were seen waiting since they were last found not to: thousands of idle ones are not looked at.
    listed: Mutex<Vec<Arc<Client>>>,
    /// The list is not empty any more.
    begun: Notify,
    next: AtomicU64,
}

impl Clients {
    /// A new connection, if there are fewer than `max`.
    pub fn admit(
        &self,
        max: u32,
        addr: String,
        laddr: String,
        fd: i32,
        now_ms: u64,
    ) -> Option<(ConnState, Arc<Client>)> {
        let mut all = lock(&self.all);
        if all.len() >= max as usize {
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let state = ConnState { fd, ..ConnState::new(id, addr, laddr, now_ms) };
        let client = Arc::new(Client {
            waiter: Arc::default(),
            kill: AtomicBool::new(false),
            active_ms: AtomicU64::new(now_ms),
            last_cmd: Mutex::default(),
            state: Mutex::new(state.clone()),
        });
        all.insert(id, client.clone());
        Some((state, client))
    }

    /// It ended.
    pub fn leave(&self, id: u64) {
        if let Some(client) = lock(&self.all).remove(&id) {
            client.waiter.waiting.store(false, Ordering::SeqCst);
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        lock(&self.all).len() as u64
    }

    /// For CLIENT LIST.
    pub fn list(&self, now_ms: u64) -> Vec<ClientInfo> {
        lock(&self.all).values().map(|c| c.info(now_ms)).collect()
    }

    /// Ends those for which `which` holds; how many.
    pub fn kill(&self, now_ms: u64, which: &dyn Fn(&ClientInfo) -> bool) -> usize {
        let doomed: Vec<Arc<Client>> = lock(&self.all).values().filter(|c| which(&c.info(now_ms))).cloned().collect();
        for c in &doomed {
            c.kill.store(true, Ordering::Release);
            c.waiter.wake();
        }
        doomed.len()
    }

    /// Says whether it holds replies or a parked command.
    pub fn waits(&self, client: &Arc<Client>, waiting: bool) {
        let Waiter { waiting: flag, listed, .. } = &*client.waiter;
        if !waiting {
            return flag.store(false, Ordering::Release);
        }
        // Before `listed` is looked at: whoever takes it from the list looks at this afterwards.
        flag.store(true, Ordering::SeqCst);
        if !listed.load(Ordering::SeqCst) && !listed.swap(true, Ordering::SeqCst) {
            let mut all = lock(&self.listed);
            all.push(client.clone());
            if all.len() == 1 {
                self.begun.notify_one();
            }
        }
    }

    /// Resolves when there may be some to nudge: at once if there are.
    pub async fn some_wait(&self) {
        while lock(&self.listed).is_empty() {
            self.begun.notified().await;
        }
    }

    /// Wakes all that hold replies or a parked command.
    pub fn nudge_all(&self) {
        lock(&self.listed).retain(|client| {
            let Waiter { waiting, listed, .. } = &*client.waiter;
            if waiting.load(Ordering::SeqCst) {
                client.waiter.wake();
                return true;
            }
            listed.store(false, Ordering::SeqCst);
            // It may have begun to wait just now, and believed that it is listed still.
            waiting.load(Ordering::SeqCst) && !listed.swap(true, Ordering::SeqCst)
        });
    }

    /// How many hold replies or a parked command.
    pub fn waiting(&self) -> u64 {
        lock(&self.all).values().filter(|c| c.waiter.waiting.load(Ordering::Relaxed)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::super::waiter::Ear;
    use super::*;

    #[test]
    fn a_nudge_is_for_those_who_wait_and_others_are_not_looked_at() {
        let clients = Clients::default();
        let admit = || clients.admit(9, String::new(), String::new(), -1, 0).unwrap();
        let ((state, a), (_, b)) = (admit(), admit());
        let (mut ear_a, mut ear_b) = (Ear::default(), Ear::default());
        let cx = Context::from_waker(Waker::noop());
        let some_wait = || std::pin::pin!(clients.some_wait()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
        let mut heard = || (ear_a.hears(&a.waiter, &cx), ear_b.hears(&b.waiter, &cx));
        for _ in 0..2 {
            clients.waits(&a, true);
            clients.waits(&a, true);
            clients.nudge_all();
            clients.nudge_all();
            assert_eq!((heard(), heard()), ((true, false), (false, false)));
            assert_eq!(lock(&clients.listed).len(), 1);
            assert!(some_wait());
            clients.waits(&a, false);
            clients.nudge_all();
            assert_eq!(heard(), (false, false));
            assert!(lock(&clients.listed).is_empty());
            assert!(!some_wait());
        }
        // Of one that is gone nothing is kept.
        clients.waits(&a, true);
        clients.leave(state.id);
        clients.nudge_all();
        assert!(lock(&clients.listed).is_empty());
    }
}
