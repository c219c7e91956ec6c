//! Many short names in as few lines as the terminal allows, read downwards as `ls` does.

use super::width;

/// Cells between two names.
const GAP: usize = 2;

/// Lays `names` out for lines of `line_width` cells.
pub fn columns(names: &[String], line_width: usize) -> String {
    let rows = (1..=names.len()).find(|rows| fits(names, *rows, line_width)).unwrap_or(names.len());
    let widths = column_widths(names, rows);
    let mut text = String::new();
    for row in 0..rows {
        let mut line = String::new();
        for (column, cells) in widths.iter().enumerate() {
            let Some(name) = names.get(column * rows + row) else { break };
            line.push_str(name);
            line.push_str(&" ".repeat(cells + GAP - width(name)));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn column_widths(names: &[String], rows: usize) -> Vec<usize> {
    let widest = |column: &[String]| column.iter().map(|name| width(name)).max().unwrap_or(0);
    names.chunks(rows.max(1)).map(widest).collect()
}

fn fits(names: &[String], rows: usize, line_width: usize) -> bool {
    let widths = column_widths(names, rows);
    widths.iter().sum::<usize>() + GAP * (widths.len() - 1) <= line_width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_columns_downwards() {
        let names: Vec<String> = ["a", "bb", "c", "dd", "e"].map(String::from).to_vec();
        assert_eq!(columns(&names, 80), "a  bb  c  dd  e\n");
        assert_eq!(columns(&names, 8), "a   dd\nbb  e\nc\n");
        assert_eq!(columns(&names, 1), "a\nbb\nc\ndd\ne\n");
        assert_eq!(columns(&[], 80), "");
    }
}
