//! Pure: a report as one web page that needs nothing else: no script, font or image from anywhere.
//!
//! The figures stand in the page as JSON, in columns and rounded; `page/plots.js` draws them.

use serde_json::{Value, json};

use super::{Growth, Report, Run, Sample};

const TEMPLATE: &str = include_str!("page/template.html");
const STYLE: &str = include_str!("page/style.css");
const PLOTS: &str = include_str!("page/plots.js");
/// Rows of a heat map beyond which neighbouring nodes share one.
const ROWS: usize = 120;

/// The page. `note` says where and how it was measured; it is shown as a text.
#[must_use]
pub fn page(report: &Report, note: &str) -> String {
    let data = rounded(json!({
        "seed": report.seed,
        "note": note,
        "strategies": report.strategies,
        "workloads": report.workloads,
        "runs": report.runs.iter().map(run).collect::<Vec<_>>(),
        "growth": report.growth.iter().map(growth).collect::<Vec<_>>(),
    }));
    // A name with "</script>" in it must not end the script.
    let data = data.to_string().replace('<', "\\u003c");
    TEMPLATE.replace("/*STYLE*/", STYLE).replace("/*PLOTS*/", PLOTS).replace("/*DATA*/", &data)
}

fn run(run: &Run) -> Value {
    json!({
        "strategy": run.strategy,
        "workload": run.workload,
        "quality": run.quality,
        "speed": run.speed,
        "series": series(&run.samples),
        "heat": heat(&run.samples),
    })
}

fn series(samples: &[Sample]) -> Value {
    let parts = |of: fn(&Sample) -> f64| samples.iter().map(of).collect::<Vec<_>>();
    let counts = |of: fn(&Sample) -> usize| samples.iter().map(of).collect::<Vec<_>>();
    json!({
        "at": parts(|it| it.at),
        "asked": parts(|it| it.asked),
        "filled": parts(|it| it.filled),
        "unplaceable": counts(|it| it.unplaceable),
        "tasks": counts(|it| it.tasks),
        "unplaced": counts(|it| it.unplaced),
        "used": counts(|it| it.used),
        "packed": counts(|it| it.packed),
        "volume": counts(|it| it.volume),
        "loadImbalance": parts(|it| it.load_imbalance),
        "fragmentation": parts(|it| it.fragmentation),
        "strandedCpus": parts(|it| it.stranded_cpus),
        "strandedMemory": parts(|it| it.stranded_memory),
        "crowded": counts(|it| it.crowded),
    })
}

/// The load of every node through time: for each sample a text with two hexadecimal digits for each
/// row, percent, `ff` where the node is down. Where there are many nodes, a row is the mean of some.
fn heat(samples: &[Sample]) -> Value {
    let nodes = samples.first().map_or(0, |sample| sample.loads.len());
    let each = nodes.div_ceil(ROWS).max(1);
    let cell = |nodes: &[Option<u8>]| {
        let up: Vec<u32> = nodes.iter().flatten().map(|load| u32::from(*load)).collect();
        if up.is_empty() { 0xff } else { up.iter().sum::<u32>() / up.len() as u32 }
    };
    let column = |sample: &Sample| {
        sample.loads.chunks(each).map(|nodes| format!("{:02x}", cell(nodes))).collect::<String>()
    };
    json!({ "each": each, "columns": samples.iter().map(column).collect::<Vec<_>>() })
}

fn growth(growth: &Growth) -> Value {
    json!({
        "strategy": growth.strategy,
        "nodes": growth.nodes,
        "known": [growth.known.p50, growth.known.p99],
        "new": [growth.new.p50, growth.new.p99],
    })
}

/// Four digits behind the point are more than a plot shows.
fn rounded(mut value: Value) -> Value {
    match &mut value {
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or_default();
            value = json!((number * 10_000.0).round() / 10_000.0);
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = rounded(value.take())),
        Value::Object(members) => {
            members.values_mut().for_each(|value| *value = rounded(value.take()));
        }
        _ => {}
    }
    value
}
