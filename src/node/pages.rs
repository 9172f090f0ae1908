//! A server keeps no memory for its start: reading flags and files, formatting help, making the first tables touch code that is
//! not needed again, and the kernel counts every page of it as resident until it is told otherwise.

use std::ffi::c_void;

use rustix::mm::{Advice, madvise};

/// Unmaps the program's code. What is still needed comes back from the page cache, a fault for some pages at a time.
pub fn forget_start() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let here = forget_start as fn() as usize;
    if let Some((from, to)) = code_around(&maps, here) {
        let start = std::ptr::without_provenance_mut::<c_void>(from);
        // SAFETY: the range is a whole mapping of a file that nobody may write to (`r-xp`, so neither data nor relocations lie
        // there): its pages are the file's and read the same when they are mapped again. No reference is made to it.
        #[allow(unsafe_code)]
        let done = unsafe { madvise(start, to - from, Advice::LinuxDontNeed) };
        if let Err(e) = done {
            tracing::debug!(error = %e, "the start's pages stay");
        }
    }
}

/// The mapping of a file around an address, of `/proc/PID/maps`, if it is code that is only read and run.
fn code_around(maps: &str, address: usize) -> Option<(usize, usize)> {
    maps.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (from, to) = fields.next()?.split_once('-')?;
        let range = (usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?);
        let code = fields.next() == Some("r-xp") && fields.nth(3).is_some_and(|file| file.starts_with('/'));
        (code && (range.0..range.1).contains(&address)).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_a_file_is_found() {
        let maps = "1000-2000 r--p 00000000 fe:00 1 /bin/x\n2000-3000 r-xp 00001000 fe:00 1 /bin/x y\n\
                    3000-4000 rw-p 00002000 fe:00 1 /bin/x\n4000-5000 r-xp 00000000 00:00 0 \n5000-6000 r-xp 0 00:00 0 [vdso]\n";
        assert_eq!(code_around(maps, 0x2000), Some((0x2000, 0x3000)));
        assert_eq!(code_around(maps, 0x2fff), Some((0x2000, 0x3000)));
        for elsewhere in [0, 0x1800, 0x3000, 0x4800, 0x5800, 0x6000] {
            assert_eq!(code_around(maps, elsewhere), None);
        }
        assert_eq!(code_around("no maps\n\n-\n", 1), None);
    }

    #[test]
    fn the_program_goes_on_without_its_pages() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(code_around(&maps, forget_start as fn() as usize).is_some());
        let resident = || {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let code = maps.split("r-xp").skip(1).find_map(|m| m.lines().find_map(|l| l.strip_prefix("Rss:")));
            code.unwrap().trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        // Other tests run beside this one and need code too; one of some tries finds less than before.
        assert!((0..100).any(|_| {
            let before = resident();
            forget_start();
            resident() < before
        }));
    }
}
