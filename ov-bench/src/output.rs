//! Lines to standard output, whose reader may go at any time.

use std::{
    fmt::Arguments,
    io::{ErrorKind, Write as _, stdout},
    process::exit,
};

/// Writes to standard output. Where its reader has closed it, as `head` does, the program ends: nobody hears the rest.
pub(crate) fn write(text: Arguments<'_>) {
    match stdout().write_fmt(text) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            eprintln!("error: standard output cannot be written: {error}; check what it leads to");
            exit(1);
        }
    }
}

/// [`std::println!`] that does not panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($text)*))) };
}
