//! Lines that stay, above a table that is drawn in place. Without a terminal there are only the lines.

use std::io::{self, IsTerminal as _, Write as _};

pub(crate) struct Screen {
    live: bool,
    table: Vec<String>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self {
            live: io::stdout().is_terminal(),
            table: Vec::new(),
        }
    }

    /// Whether tables are shown.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Adds a line that stays.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        let output = format!("{}{line}\n{}", self.erased(), self.drawn());
        write(&output)
    }

    /// Shows `table` in place of the one before.
    pub(crate) fn draw(&mut self, table: Vec<String>) -> io::Result<()> {
        let erased = self.erased();
        self.table = table;
        write(&format!("{erased}{}", self.drawn()))
    }

    /// Moves to the table's first line and clears from there on.
    fn erased(&self) -> String {
        match self.table.len() {
            0 => String::new(),
            lines => format!("\x1b[{lines}F\x1b[J"),
        }
    }

    /// The table, cut off at the right edge: a line that wraps would be two to erase.
    fn drawn(&self) -> String {
        if self.table.is_empty() {
            return String::new();
        }
        format!("\x1b[?7l{}\n\x1b[?7h", self.table.join("\n"))
    }
}

/// All at once, so that nothing flickers.
fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}
