//! Programs for AArch64, by the assembler and the linker.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// A library, which runs anywhere.
    Shared,
    /// A program that runs at one place.
    Fixed,
    /// Not yet, as a module of the kernel.
    Not,
    /// As a kernel: without sections, and with the tables that it has for moving itself, for other machines,
    /// for modules and for naming its functions.
    Kernel,
}

/// Where a kernel puts what.
const SCRIPT: &str = "SECTIONS {
    . = 0xffff800008000000;
    .text : { *(.text) }
    .rodata : { . = ALIGN(8); *(.exported) *(.names) *(.other) *(.rodata) }
    .rela.dyn : { . = ALIGN(8); *(.rela.dyn) }
    .data : { *(.data) }
    /DISCARD/ : { *(.dynamic) *(.dynsym) *(.dynstr) *(.gnu.hash) *(.hash) *(.interp) }
}";

/// A program of so many functions that call each other and have strings and numbers; `extra` functions
/// come first and in the middle, so that all others move.
pub fn aarch64(functions: u32, extra: u32, linked: Linked) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    let source = source(functions, extra, linked == Linked::Kernel);
    fs::write(place.path().join("program.s"), source).unwrap();
    run(place.path(), "as", &["-o", "program.o", "program.s"]);
    let program = match linked {
        Linked::Not => "program.o",
        Linked::Shared | Linked::Fixed | Linked::Kernel => "program",
    };
    let files = ["-o", "program", "program.o"];
    match linked {
        Linked::Not => {}
        Linked::Shared => run(place.path(), "ld", &[&["-shared"], &files[..]].concat()),
        Linked::Fixed => run(place.path(), "ld", &[&["-e", "f0"], &files[..]].concat()),
        Linked::Kernel => {
            fs::write(place.path().join("script"), SCRIPT).unwrap();
            let options = ["-shared", "-Bsymbolic", "-z", "notext", "-T", "script"];
            run(place.path(), "ld", &[&options, &files[..]].concat());
            run(place.path(), "objcopy", &["-O", "binary", "program"]);
        }
    }
    fs::read(place.path().join(program)).unwrap()
}

/// A program with the types of a kernel or a module, which a kernel has at its end.
pub(crate) fn with_types(program: &[u8], types: &[u8]) -> Vec<u8> {
    if !program.starts_with(b"\x7fELF") {
        let mut kernel = program.to_vec();
        kernel.resize(kernel.len().next_multiple_of(4), 0);
        kernel.extend_from_slice(types);
        return kernel;
    }
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("program"), program).unwrap();
    fs::write(place.path().join("types"), types).unwrap();
    let options = ["--add-section", ".BTF=types", "program"];
    run(place.path(), "objcopy", &options);
    fs::read(place.path().join("program")).unwrap()
}

fn run(place: &Path, tool: &str, arguments: &[&str]) {
    let mut command = Command::new(format!("aarch64-linux-gnu-{tool}"));
    let output = command.current_dir(place).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

fn source(functions: u32, extra: u32, is_kernel: bool) -> String {
    // What begins a kernel is its magic, at its place.
    let head = ".text\nbegin: .space 56\n.ascii \"ARM\\x64\"\n.space 4\n";
    let mut text = String::from(".text\n");
    let mut data = String::from(".data\n");
    let mut strings = String::from(".section .rodata, \"a\"\n");
    let mut tables = String::new();
    let mut function = |name: &str, i: u32, calls: [u32; 2]| {
        let [one, other] = calls;
        let number = i.wrapping_mul(2_654_435_761) >> 16;
        write!(
            text,
            "{name}: stp x29, x30, [sp, #-32]!\n\
             str x19, [sp, #16]\n\
             cmp w0, #{}\n\
             b.hi 1f\n\
             adrp x19, s_{name}\n\
             mov w2, #{number}\n\
             add x0, x19, :lo12:s_{name}\n\
             bl f{one}\n\
             cbz w0, 2f\n\
             1: adrp x1, n_{name}\n\
             adrp x3, q_{name}\n\
             ldr w4, [x1, :lo12:n_{name}]\n\
             ldr q0, [x3, :lo12:q_{name}]\n\
             str w2, [x1, :lo12:n_{name}]\n\
             tbnz w4, #3, 2f\n\
             adrp x1, n_{name}\n\
             add x1, x1, :lo12:n_{name}\n\
             ldr w5, [x1, #4]\n\
             bl f{other}\n\
             2: ldr x19, [sp, #16]\n\
             ldp x29, x30, [sp], #32\n\
             ret\n",
            i % 4096,
        )
        .unwrap();
        writeln!(strings, "s_{name}: .asciz \"{name} says {number}\"").unwrap();
        write!(
            tables,
            ".section .exported, \"a\"\n.word {name} - ., s_{name} - ., nothing - .\n\
             .section .names, \"a\"\n.word {name} - begin\n\
             .section .other, \"a\"\n.word {name} - ., f0 - .\n.hword 7\n.byte 4, 4\n",
        )
        .unwrap();
        write!(
            data,
            ".balign 16\nq_{name}: .quad {number}, {name}\nn_{name}: .word {i}, {number}\n"
        )
        .unwrap();
    };
    for i in 0..extra {
        function(&format!("early{i}"), 90_000 + i, [0, 1]);
    }
    for i in 0..functions {
        let other = i.wrapping_mul(7919) % functions;
        function(&format!("f{i}"), i, [i.saturating_sub(1), other]);
        if i == functions / 2 {
            (0..extra).for_each(|k| function(&format!("late{k}"), 80_000 + k, [i, 2]));
        }
    }
    let nothing = ".section .rodata, \"a\"\nnothing: .byte 0\n";
    let kernel = if is_kernel { [head, &tables] } else { [""; 2] };
    [&kernel.concat(), &text, &strings, nothing, &data].concat()
}
