//! Prints the figures that the documentation of `lb_common::maglev` quotes: how long a table takes to fill, how even it is, and what
//! share of its entries changes hands between backends that stay when another leaves. The same draws each time: ids are hashed numbers.
//!
//! `cargo run --release -p lb-common --example maglev_figures [DRAWS]`
#![expect(clippy::cast_precision_loss, reason = "counts of entries are far below 2^52")]

use std::time::{Duration, Instant};

use lb_common::maglev::{Backend, FillError, SIZES, Turn, fill};
use lb_common::siphash::sip13;

/// What many draws of one size and one number of backends came to.
#[derive(Default)]
struct Figures {
    fill: Duration,
    uneven: f64,
    moved_sum: f64,
    moved_worst: f64,
}

fn main() -> Result<(), FillError> {
    let draws = std::env::args().nth(1).and_then(|draws| draws.parse().ok()).unwrap_or(100);
    println!("| entries | backends | fill | share off by up to | moved between the others: mean | worst of {draws} |");
    println!("|--:|--:|--:|--:|--:|--:|");
    let rows: [(u32, &[u32]); 4] = [
        (4_091, &[7, 16, 40]),
        (SIZES[0].entries, &[2, 3, 4, 8, 16, 24, 32, 40, 64, 81]),
        (SIZES[1].entries, &[4, 16, 41, 100, 200, 300, 400, 500, 655, 1000]),
        (SIZES[2].entries, &[656, 1000, 2000, 2621]),
    ];
    for (size, counts) in rows {
        for &count in counts {
            let Figures { fill, uneven, moved_sum, moved_worst } = measure(size, count, draws)?;
            println!(
                "| {size} | {count} | {:.2} ms | {:.2} % | {:.2} % | {:.2} % |",
                fill.as_secs_f64() * 1e3 / draws as f64,
                uneven * 100.0,
                moved_sum * 100.0 / draws as f64,
                moved_worst * 100.0,
            );
        }
    }
    Ok(())
}

fn measure(size: u32, count: u32, draws: u64) -> Result<Figures, FillError> {
    let mut figures = Figures::default();
    let (mut before, mut after) = (vec![0; size as usize], vec![0; size as usize]);
    let mut scratch = vec![Turn::default(); count as usize];
    for draw in 0..draws {
        let mut backends: Vec<Backend> = (0..count).map(|slot| Backend { id: sip13([draw, 0], [slot.into()]), slot, weight: 1 }).collect();
        let start = Instant::now();
        fill(&mut before, &backends, &mut scratch)?;
        figures.fill += start.elapsed();

        let mut counts = vec![0_u32; count as usize];
        for &slot in &before {
            counts[slot as usize] += 1;
        }
        let share = f64::from(size) / f64::from(count);
        figures.uneven = counts.iter().map(|&count| (f64::from(count) / share - 1.0).abs()).fold(figures.uneven, f64::max);

        // Any one of them: their ids are hashes.
        let leaver = backends.swap_remove(0).slot;
        fill(&mut after, &backends, &mut scratch)?;
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after && **before != leaver).count();
        let moved = moved as f64 / f64::from(size);
        figures.moved_sum += moved;
        figures.moved_worst = figures.moved_worst.max(moved);
    }
    Ok(figures)
}
