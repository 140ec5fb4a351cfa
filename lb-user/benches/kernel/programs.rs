//! What the verifier makes of each program of the object.

use std::time::Instant;

use aya::{
    Btf, EbpfLoader,
    programs::{Program, ProgramError, ProgramInfo},
};
use lb_user::dataplane::OBJECT;
use serde_json::{Value, json};

use crate::{Filter, report::Table};

/// How often each program is loaded; the median time counts.
const LOADS: usize = 5;

/// Those that a kernel may refuse as they are: one calls a function whose number the daemon finds out, one needs a trampoline.
const LEFT_OUT: [&str; 2] = ["restore_request", "accepted"];

/// Loads every program of the object, alone.
pub fn measure(filter: &Filter) -> Table {
    let mut names: Vec<_> = {
        let ebpf = EbpfLoader::new().load(OBJECT).expect("the object's maps");
        ebpf.programs().map(|(name, _)| name.to_owned()).collect()
    };
    names.sort();
    names.retain(|name| filter.takes(name) && !LEFT_OUT.contains(&name.as_str()));
    Table {
        about: format!("**Programs**: the object of {} bytes; load times are medians of {LOADS}", OBJECT.len()),
        columns: &[
            ("program", "program"),
            ("verified_instructions", "verified instructions"),
            ("translated_bytes", "translated, bytes"),
            ("machine_code_bytes", "machine code, bytes"),
            ("load_ms", "load, ms"),
        ],
        rows: names.iter().map(|name| row(name)).collect(),
    }
}

fn row(name: &str) -> Vec<Value> {
    let btf = Btf::from_sys_fs().expect("the kernel's types");
    let mut loads: Vec<_> = (0..LOADS).map(|_| load(name, &btf)).collect();
    loads.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let (milliseconds, info) = &loads[LOADS / 2];
    vec![
        json!(name),
        json!(info.verified_instruction_count()),
        json!(info.size_translated()),
        json!(info.size_jitted()),
        json!((milliseconds * 100.0).round() / 100.0),
    ]
}

/// Loads one program and gives how many milliseconds that took.
fn load(name: &str, btf: &Btf) -> (f64, ProgramInfo) {
    let mut ebpf = EbpfLoader::new().load(OBJECT).expect("the object's maps");
    let program = ebpf.program_mut(name).expect("a program of the object");
    let start = Instant::now();
    load_kind(name, program, btf).unwrap_or_else(|error| panic!("{name}: {error}"));
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    (milliseconds, program.info().expect("the program's facts"))
}

fn load_kind(name: &str, program: &mut Program, btf: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SkReuseport(program) => program.load(),
        Program::BtfTracePoint(program) => program.load(if name == "kernel_drop" { "kfree_skb" } else { "inet_sock_set_state" }, btf),
        Program::Iter(program) => program.load(if name == "socket_queues" { "bpf_sk_storage_map" } else { "task_file" }, btf),
        other => panic!("a program of another kind: {other:?}"),
    }
}
