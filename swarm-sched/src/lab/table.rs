//! Pure: reports as a text.

use std::fmt::Write as _;

use super::{Quality, Report, Run, Sample, Speed};

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

/// What stands in a cell, of its numbers of all seeds in order.
type Pick = fn(&[f64]) -> f64;

/// Every workload as a table, with a row for each strategy and one for what is possible for one who
/// knows all tasks beforehand; then the cost of one decision by the size of the cluster.
///
/// Reports are of the same comparison, each of another seed. Where there are several, a strategy's
/// row has the medians, and below it the lowest and the highest; growth is the first one's.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let mut text = String::new();
    let Some(first) = reports.first() else { return text };
    for workload in &first.workloads {
        about(&mut text, reports, &workload.name);
        heads(&mut text);
        let runs = |strategy: &String| -> Vec<&Run> {
            let runs = reports.iter().flat_map(|it| it.of(&workload.name));
            runs.filter(|run| run.strategy == *strategy).collect()
        };
        for strategy in &first.strategies {
            rows(&mut text, strategy, &runs(strategy), cells);
        }
        if let Some(any) = first.strategies.first() {
            rows(&mut text, "(offline)", &runs(any), offline);
        }
        text.push('\n');
    }
    if !first.growth.is_empty() {
        growth(&mut text, first);
    }
    text
}

fn about(text: &mut String, reports: &[Report], workload: &str) {
    let same: Vec<_> =
        reports.iter().flat_map(|it| &it.workloads).filter(|it| it.name == workload).collect();
    let events = same.iter().map(|it| it.events);
    let (least, most) = (events.clone().min().unwrap_or(0), events.max().unwrap_or(0));
    let events = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let seeds =
        if reports.len() > 1 { format!(", {} seeds", reports.len()) } else { String::new() };
    if let Some(it) = same.first() {
        let _ =
            writeln!(text, "{workload}: {} nodes, {events} events{seeds}. {}", it.nodes, it.about);
    }
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

/// The medians and, of several runs, the lowest and the highest.
fn rows(text: &mut String, name: &str, runs: &[&Run], cells: fn(&[&Run], Pick) -> Vec<String>) {
    let middle: Pick = |sorted| {
        let half = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
    };
    let picks: [(&str, Pick); 3] = [
        (name, middle),
        ("  lowest", |sorted| sorted[0]),
        ("  highest", |sorted| sorted[sorted.len() - 1]),
    ];
    let shown = if runs.len() > 1 { picks.len() } else { runs.len() };
    for (name, pick) in &picks[..shown] {
        row(text, name, &cells(runs, *pick));
    }
}

fn cells(runs: &[&Run], pick: Pick) -> Vec<String> {
    let quality = |of: fn(&Quality) -> f64| picked(runs, pick, |run| of(&run.quality));
    let speed = |of: fn(&Speed) -> f64| picked(runs, pick, |run| of(&run.speed));
    vec![
        format!("{:.2}", quality(|it| it.task_imbalance)),
        format!("{:.2}", quality(|it| it.load_imbalance)),
        percent(quality(|it| it.fragmentation)),
        percent(quality(|it| it.stranded_cpus)),
        percent(quality(|it| it.stranded_memory)),
        format!("{:.0}", quality(|it| it.unplaced_most as f64)),
        format!("{:.0}", quality(|it| it.unplaced_end as f64)),
        percent(quality(|it| it.full_at.unwrap_or(f64::INFINITY))),
        percent(quality(|it| it.filled)),
        format!("{:.2}", quality(|it| it.packing)),
        format!("{:.2}", quality(|it| it.over_volume)),
        format!("{:.1}", quality(|it| it.crowded)),
        format!("{:.0}", quality(|it| it.moved as f64)),
        format!("{:.0}", speed(|it| it.per_second)),
        format!("{} / {}", micros(speed(|it| it.p50 as f64)), micros(speed(|it| it.p99 as f64))),
    ]
}

/// The row of the bound: only what a packing has.
fn offline(runs: &[&Run], pick: Pick) -> Vec<String> {
    let of = |of: &dyn Fn(&Run) -> f64| picked(runs, pick, of);
    let most = |run: &Run, of: fn(&Sample) -> f64| run.samples.iter().map(of).fold(0.0, f64::max);
    let unplaceable = |it: &Sample| it.unplaceable as f64;
    let mut cells = vec![String::new(); COLUMNS.len()];
    cells[5] = format!("{:.0}", of(&|run| most(run, unplaceable)));
    cells[6] = format!("{:.0}", of(&|run| run.samples.last().map_or(0.0, unplaceable)));
    cells[8] = percent(of(&|run| most(run, |it| it.asked).min(1.0)));
    cells[9] = "1.00".to_owned();
    cells[10] = format!("{:.2}", of(&|run| run.quality.over_volume / run.quality.packing));
    cells
}

fn picked(runs: &[&Run], pick: Pick, of: impl Fn(&Run) -> f64) -> f64 {
    let mut numbers: Vec<f64> = runs.iter().map(|run| of(run)).collect();
    numbers.sort_by(f64::total_cmp);
    pick(&numbers)
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
                let cell = format!("{} / {}", micros(speed.p50 as f64), micros(speed.p99 as f64));
                let _ = write!(text, " {cell:>16}");
            }
            text.push('\n');
        }
    }
}

/// A part of something; without end is what never happened.
fn percent(part: f64) -> String {
    if part.is_finite() { format!("{:.1}", 100.0 * part) } else { "-".to_owned() }
}

fn micros(nanos: f64) -> String {
    let micros = nanos / 1000.0;
    if micros < 10.0 { format!("{micros:.1}") } else { format!("{micros:.0}") }
}
