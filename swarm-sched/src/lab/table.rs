//! Pure: a report as a text.

use std::fmt::Write as _;

use super::{About, Report, Run};

/// The heads of the columns, over two lines, with their widths.
const COLUMNS: [(&str, &str, usize); 15] = [
    ("balance", "tasks", 7),
    ("balance", "load", 7),
    ("fragm.", "%", 6),
    ("stranded", "CPU %", 8),
    ("stranded", "mem. %", 8),
    ("unplaced", "most", 8),
    ("unplaced", "end", 8),
    ("full at", "%", 7),
    ("filled", "%", 6),
    ("nodes /", "best fit", 8),
    ("nodes /", "volume", 7),
    ("spread", "viol.", 6),
    ("tasks", "moved", 6),
    ("decisions", "per s", 9),
    ("p50 / p99", "µs", 14),
];

/// Every workload as a table, with a row for each strategy and one for what is possible for one who
/// knows all tasks beforehand; then the cost of one decision by the size of the cluster.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for workload in &report.workloads {
        about(&mut text, workload);
        heads(&mut text);
        let runs: Vec<&Run> = report.of(&workload.name).collect();
        for run in &runs {
            row(&mut text, &run.strategy, &cells(run));
        }
        if let Some(run) = runs.first() {
            row(&mut text, "(offline)", &offline(run));
        }
        text.push('\n');
    }
    if !report.growth.is_empty() {
        growth(&mut text, report);
    }
    text
}

fn about(text: &mut String, workload: &About) {
    let About { name, about, nodes, events } = workload;
    let _ = writeln!(text, "{name}: {nodes} nodes, {events} events. {about}");
}

fn heads(text: &mut String) {
    for second in [false, true] {
        let _ = write!(text, "{:18}", "");
        for (upper, lower, width) in COLUMNS {
            let head = if second { lower } else { upper };
            let _ = write!(text, " {head:>width$}");
        }
        text.push('\n');
    }
}

fn row(text: &mut String, name: &str, cells: &[String]) {
    let _ = write!(text, "{name:18}");
    for (cell, (.., width)) in cells.iter().zip(COLUMNS) {
        let _ = write!(text, " {cell:>width$}");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

fn cells(run: &Run) -> Vec<String> {
    let (quality, speed) = (&run.quality, &run.speed);
    vec![
        format!("{:.2}", quality.task_imbalance),
        format!("{:.2}", quality.load_imbalance),
        percent(quality.fragmentation),
        percent(quality.stranded_cpus),
        percent(quality.stranded_memory),
        quality.unplaced_most.to_string(),
        quality.unplaced_end.to_string(),
        quality.full_at.map_or_else(|| "-".to_owned(), percent),
        percent(quality.filled),
        format!("{:.2}", quality.packing),
        format!("{:.2}", quality.over_volume),
        format!("{:.1}", quality.crowded),
        quality.moved.to_string(),
        format!("{:.0}", speed.per_second),
        format!("{} / {}", micros(speed.p50), micros(speed.p99)),
    ]
}

/// The row of the bound: only what a packing has.
fn offline(run: &Run) -> Vec<String> {
    let unplaced = |sample: &super::Sample| sample.unplaceable;
    let most = run.samples.iter().map(unplaced).max().unwrap_or(0);
    let end = run.samples.last().map_or(0, unplaced);
    let mut cells = vec![String::new(); COLUMNS.len()];
    cells[5] = most.to_string();
    cells[6] = end.to_string();
    let asked = run.samples.iter().map(|sample| sample.asked).fold(0.0, f64::max);
    cells[8] = percent(asked.min(1.0));
    cells[9] = "1.00".to_owned();
    cells[10] = format!("{:.2}", run.quality.over_volume / run.quality.packing);
    cells
}

fn growth(text: &mut String, report: &Report) {
    let mut sizes: Vec<usize> = report.growth.iter().map(|growth| growth.nodes).collect();
    sizes.dedup();
    let _ =
        writeln!(text, "one more task of a new service, p50 / p99 in µs, by the number of nodes");
    let _ = write!(text, "{:18}", "");
    for nodes in &sizes {
        let _ = write!(text, " {nodes:>16}");
    }
    text.push('\n');
    for known in [true, false] {
        let needs = if known { "known needs" } else { "new needs" };
        let _ = writeln!(text, "{needs}:");
        for strategy in &report.strategies {
            let of = report.growth.iter().filter(|growth| growth.strategy == *strategy);
            let sizes: Vec<_> = of.collect();
            if sizes.is_empty() {
                continue;
            }
            let _ = write!(text, "  {strategy:16}");
            for it in sizes {
                let speed = if known { &it.known } else { &it.new };
                let cell = format!("{} / {}", micros(speed.p50), micros(speed.p99));
                let _ = write!(text, " {cell:>16}");
            }
            text.push('\n');
        }
    }
}

fn percent(part: f64) -> String {
    format!("{:.1}", 100.0 * part)
}

fn micros(nanos: u64) -> String {
    let micros = nanos as f64 / 1000.0;
    if micros < 10.0 { format!("{micros:.1}") } else { format!("{micros:.0}") }
}
