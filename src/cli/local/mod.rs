//! Local clusters: processes that `up` starts on this machine, what is recorded of them, and how they end.

pub mod inherit;
pub mod left;
pub mod lock;
pub mod logs;
pub mod member;
pub mod ports;
pub mod process;
pub mod settle;
pub mod spawn;
pub mod state;
pub mod stop;
pub mod wait;
