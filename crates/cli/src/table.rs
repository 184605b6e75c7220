//! Aligned columns of text.

use std::io::{self, Write};

/// How a column is aligned.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows of text under a heading.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    columns: [(&'static str, Align); N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with these columns.
    pub(crate) fn new(columns: [(&'static str, Align); N]) -> Self {
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, row: [String; N]) {
        self.rows.push(row);
    }

    /// Writes the heading, dressed by `dress`, and the rows, two spaces between columns.
    pub(crate) fn write(&self, out: &mut impl Write, dress: impl Fn(&str) -> String) -> io::Result<()> {
        let heading = self.columns.map(|(title, _)| title.to_owned());
        let mut widths = [0; N];
        for row in std::iter::once(&heading).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        writeln!(out, "{}", dress(&self.line(&heading, &widths)))?;
        for row in &self.rows {
            writeln!(out, "{}", self.line(row, &widths))?;
        }
        Ok(())
    }

    fn line(&self, row: &[String; N], widths: &[usize; N]) -> String {
        let cells =
            row.iter().zip(widths).zip(&self.columns).map(|((cell, width), (_, align))| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new([("NAME", Align::Left), ("BYTES", Align::Right)]);
        table.push(["é".to_owned(), "1".to_owned()]);
        table.push(["longer".to_owned(), "1000000".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out, str::to_owned).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME      BYTES\né             1\nlonger  1000000\n");
    }
}
