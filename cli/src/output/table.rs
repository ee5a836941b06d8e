//! Tables for people: no lines, columns two spaces apart, as `ps` and `kubectl` print them.

use comfy_table::{CellAlignment, ContentArrangement, presets};

/// Rows under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
    empty: &'static str,
}

impl Table {
    /// A table without rows. A column whose heading ends in `#` holds numbers: it is set to the right, and the sign is
    /// not shown.
    pub(crate) fn new(head: &'static [&'static str]) -> Self {
        Self { head, rows: Vec::new(), empty: "nothing to show" }
    }

    /// What is said when there are no rows.
    pub(crate) fn or(mut self, empty: &'static str) -> Self {
        self.empty = empty;
        self
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.head.len(), "a cell for each column");
        self.rows.push(cells.into());
    }

    /// The table as text.
    pub(crate) fn render(&self, styled: bool) -> String {
        if self.rows.is_empty() {
            return self.empty.to_owned();
        }
        let mut table = comfy_table::Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.head.iter().map(|name| name.trim_end_matches('#')));
        table.add_rows(&self.rows);
        for (column, name) in table.column_iter_mut().zip(self.head) {
            column.set_padding((0, 2));
            if name.ends_with('#') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let text = table.to_string();
        let mut lines = text.lines().map(str::trim_end);
        let head = lines.next().unwrap_or_default();
        let head = if styled { format!("\x1b[1m{head}\x1b[0m\n") } else { format!("{head}\n") };
        lines.fold(head, |all, line| all + line + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let mut table = Table::new(&["NAME", "SIZE#", "NOTE"]);
        table.row(["a".into(), "5".into(), "x".into()]);
        table.row(["longer".into(), "1234".into(), String::new()]);
        assert_eq!(table.render(false), "NAME    SIZE  NOTE\na          5  x\nlonger  1234\n");
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(Table::new(&["NAME"]).or("no agents").render(true), "no agents");
    }
}
