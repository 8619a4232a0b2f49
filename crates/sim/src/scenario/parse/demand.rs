use std::time::Duration;

use super::{ReadFile, positive_time};
use crate::demand::{Curve, Cycle, Demand, Point, Want};
use crate::fields::{Fields, flag, fraction, size, text, time};

/// Reads the `demand` of the VM in `fields`.
pub(super) fn demand(fields: &mut Fields, read: ReadFile<'_>) -> Result<Demand, String> {
    let mut f = fields
        .table("demand")?
        .ok_or_else(|| format!("{}demand is missing: points, cycle or trace", fields.whose))?;
    let mut curves = Vec::new();
    let points = f.list("points")?;
    if !points.is_empty() {
        curves.push(self::points(points)?);
    }
    if let Some(cycle) = f.table("cycle")? {
        curves.push(self::cycle(cycle)?);
    }
    if let Some(trace) = f.table("trace")? {
        curves.push(self::trace(trace, read)?);
    }
    let jitter = f.or("jitter", fraction, 0.0)?;
    let spread = f.or("spread", time, Duration::ZERO)?;
    let one = "one of points, cycle and trace is needed";
    let curve = curves.pop().filter(|_| curves.is_empty());
    let curve = curve.ok_or_else(|| format!("{}{one}", f.whose))?;
    f.end().map(|()| Demand { curve, jitter, spread })
}

fn trace(mut f: Fields, read: ReadFile<'_>) -> Result<Curve, String> {
    let file = f.required("file", text)?;
    let vm = f.optional("vm", text)?;
    let repeat = f.or("repeat", flag, false)?;
    let wrong = |e: String| f.refuse("file", format_args!("{file:?}"), &e);
    let course = read(&file).map_err(wrong)?;
    let trace = crate::trace::read(&course, vm.as_deref(), repeat).map_err(wrong)?;
    f.end().map(|()| Curve::Trace(trace))
}

fn points(list: Vec<Fields>) -> Result<Curve, String> {
    let mut points: Vec<Point> = Vec::new();
    for mut f in list {
        let (at, ramp) = (f.or("at", time, Duration::ZERO)?, f.or("ramp", time, Duration::ZERO)?);
        let (active, content) = (f.required("active", size)?, f.optional("content", size)?);
        if let Some(content) = content.filter(|c| *c < active) {
            return Err(f.refuse("content", content, &format!("it is less than active {active}")));
        }
        if points.last().is_some_and(|p| p.at + p.ramp > at) {
            return Err(f.refuse("at", format_args!("{at:?}"), "it is before the end of the point above"));
        }
        points.push(Point { at, ramp, want: Want { active, content } });
        f.end()?;
    }
    Ok(Curve::Points(points))
}

fn cycle(mut f: Fields) -> Result<Curve, String> {
    let (low, high) = (f.required("low", size)?, f.required("high", size)?);
    if low > high {
        return Err(f.refuse("low", low, &format!("it is over high {high}")));
    }
    let period = f.required("period", positive_time)?;
    let peak = f.or("peak", time, Duration::ZERO)?;
    let duty = f.optional("duty", fraction)?;
    f.end().map(|()| Curve::Cycle(Cycle { low, high, period, peak, duty }))
}
