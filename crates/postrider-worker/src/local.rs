//! Faults of this machine, told from faults of receivers.

use std::fs::File;
use std::io;

use rustix::io::Errno;

/// What the system says when it has none left of something that a connection needs: file descriptors, of this process
/// or in all; memory; ports for outgoing connections.
const FAULTS: [Errno; 5] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL];

/// Whether an error is a fault of this machine.
pub(crate) fn is_local(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| FAULTS.contains(&errno))
}

/// Whether a file could be opened now. Resolvers and readers of certificates do not say that they could not.
pub(crate) fn has_descriptors() -> bool {
    File::open("/dev/null").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_no_fault_of_receivers() {
        for errno in FAULTS {
            assert!(is_local(&errno.into()), "{errno:?}");
        }
        for errno in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::TIMEDOUT, Errno::PIPE]
        {
            assert!(!is_local(&errno.into()), "{errno:?}");
        }
        assert!(!is_local(&io::Error::other("something else")));
        assert!(has_descriptors());
    }
}
