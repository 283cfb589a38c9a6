//! Getting a program past the verifier.

use aya::programs::ProgramError;
use nix::libc::EAGAIN;

/// How often a program is handed to the verifier at most: as often as libbpf does.
const TRIES: u32 = 5;

/// Loads a program by `load`. The verifier gives up with EAGAIN where a signal waits for the thread
/// (`do_check` in the kernel), whatever the signal: it is asked again.
///
/// # Errors
/// The last try's.
pub fn verified(load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    uninterrupted(load, |error| match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        _ => None,
    })
}

/// Repeats `load` while the kernel's error `code` says that a signal came in between.
fn uninterrupted<E>(
    mut load: impl FnMut() -> Result<(), E>,
    code: impl Fn(&E) -> Option<i32>,
) -> Result<(), E> {
    for _ in 1..TRIES {
        match load() {
            Err(error) if code(&error) == Some(EAGAIN) => {}
            result => return result,
        }
    }
    load()
}

#[cfg(test)]
mod tests {
    use nix::libc::EACCES;

    use super::*;

    /// Tries to load a program whose verification fails with `error` for the first `failures` times.
    fn load(error: i32, failures: u32) -> (Result<(), i32>, u32) {
        let mut asked = 0;
        let result = uninterrupted(
            || {
                asked += 1;
                if asked <= failures { Err(error) } else { Ok(()) }
            },
            |error| Some(*error),
        );
        (result, asked)
    }

    #[test]
    fn a_program_that_a_signal_interrupted_is_loaded_again_and_no_other() {
        assert_eq!(load(EAGAIN, 2), (Ok(()), 3));
        assert_eq!(load(EAGAIN, 99), (Err(EAGAIN), 5));
        assert_eq!(load(EACCES, 1), (Err(EACCES), 1));
    }
}
