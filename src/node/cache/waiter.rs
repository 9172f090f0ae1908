//! Someone who waits for what others do: a connection with held replies or a parked command.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use super::shard::lock;

/// Told by many, heard by one task. Asking costs two loads: a connection asks before every read.
#[derive(Debug, Default)]
pub struct Waiter {
    told: AtomicBool,
    waker: Mutex<Option<Waker>>,
    /// It holds replies or a parked command: sweeps wake only these.
    pub waiting: AtomicBool,
    /// Sweeps look at it.
    pub listed: AtomicBool,
}

impl Waiter {
    /// Wakes its task, now or when it asks next.
    pub fn wake(&self) {
        self.told.store(true, Ordering::Release);
        if let Some(waker) = &*lock(&self.waker) {
            waker.wake_by_ref();
        }
    }
}

/// Its task's end.
#[derive(Debug, Default)]
pub struct Ear {
    registered: Option<Waker>,
}

impl Ear {
    /// Whether somebody woke it since it asked last; if not, the task is woken when somebody does.
    pub fn hears(&mut self, waiter: &Waiter, cx: &Context<'_>) -> bool {
        if !self.registered.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            self.registered = Some(cx.waker().clone());
            *lock(&waiter.waker) = Some(cx.waker().clone());
        }
        // After registering: who came before is seen here, who comes later wakes.
        waiter.told.load(Ordering::Acquire) && waiter.told.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::Poll;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_word_is_lost() {
        let waiter = Arc::new(Waiter::default());
        let (heard, said) = (Arc::new(std::sync::atomic::AtomicU64::new(0)), 20_000u64);
        let task = {
            let (waiter, heard) = (waiter.clone(), heard.clone());
            tokio::spawn(async move {
                let mut ear = Ear::default();
                while heard.load(Ordering::Acquire) < said {
                    poll_fn(|cx| if ear.hears(&waiter, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
                    heard.fetch_add(1, Ordering::AcqRel);
                }
            })
        };
        for n in 0..said {
            waiter.wake();
            while heard.load(Ordering::Acquire) <= n {
                tokio::task::yield_now().await;
            }
        }
        task.await.expect("it ends");
    }
}
