//! Children inherit nothing: every descriptor beyond the standard three is closed in them.

use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_setfd};

/// Marks every open descriptor from 3 on close-on-exec. Rust's own are already; those a shell or a supervisor left open are
/// not, and a node that held, say, somebody's lock file for days would be a riddle. Call it before threads start.
pub fn close_on_exec() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let fds: Vec<i32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    for fd in fds.into_iter().filter(|fd| *fd >= 3) {
        // SAFETY: the number is borrowed for one fcntl(F_SETFD) only, which neither closes the descriptor nor touches what
        // it refers to; were it closed meanwhile (as the directory listing's own is) the call answers EBADF.
        #[allow(unsafe_code)]
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let _ = fcntl_setfd(borrowed, FdFlags::CLOEXEC);
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::{dup, fcntl_getfd};

    use super::*;

    #[test]
    fn what_was_left_open_is_closed_in_children() {
        // A plain dup is what a careless parent leaves behind.
        let left = dup(std::fs::File::open("/dev/null").unwrap()).unwrap();
        assert_eq!(fcntl_getfd(&left).unwrap(), FdFlags::empty());
        close_on_exec();
        assert_eq!(fcntl_getfd(&left).unwrap(), FdFlags::CLOEXEC);
        assert!(!fcntl_getfd(std::io::stderr()).unwrap().contains(FdFlags::CLOEXEC), "the standard three stay");
    }
}
