//! A plain feed-forward network from a GGUF file, weights and biases under whatever names it has.
//!
//!     cargo run --example feed_forward
//!
//! Writes a small network, loads it again, and runs it on one input.

use std::error::Error;
use std::path::Path;

use metallic::backend::{Backend, Cpu, Input, MatmulJob, Tokens};
use metallic::model::config::Activation;
use metallic::{GgmlType, GgufFile, Isa, gguf::GgufWriter};

/// Layers of `relu(W x + b)`, the last without the `relu`.
pub(crate) struct FeedForward {
    cpu: Cpu,
    layers: Vec<Layer>,
}

struct Layer {
    matrix: <Cpu as Backend>::Matrix,
    bias: <Cpu as Backend>::Buffer,
}

impl FeedForward {
    /// Loads the layers whose weights and biases have these names.
    pub(crate) fn load(path: &Path, names: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let file = GgufFile::open(path)?;
        let mut cpu = Cpu::new(1, Isa::best())?;
        let gguf = file.gguf();
        let tensor = |name: &str| gguf.tensor(name).ok_or_else(|| format!("no tensor {name}"));
        let layers = names.iter().map(|(weights, bias)| {
            let matrix = cpu.matrix(file.matrix(&tensor(weights)?)?)?;
            let values = file.floats(&tensor(bias)?)?;
            let mut bias = cpu.buffer("a bias", values.len())?;
            cpu.write(&values, &mut bias)?;
            Ok(Layer { matrix, bias })
        });
        let layers = layers.collect::<Result<_, Box<dyn Error>>>()?;
        Ok(Self { cpu, layers })
    }

    /// The network's output for one input, as wide as the first matrix's rows are long.
    pub(crate) fn run(&mut self, input: &[f32]) -> Result<Vec<f32>, metallic::Error> {
        let mut x = self.cpu.buffer("the input", input.len())?;
        self.cpu.write(input, &mut x)?;
        for (i, Layer { matrix, bias }) in self.layers.iter().enumerate() {
            let mut out = self.cpu.buffer("a layer's output", bias.len())?;
            let job = MatmulJob { bias: Some(bias), ..MatmulJob::new(matrix, &mut out) };
            self.cpu.matmul(&Input::Rows(&x), Tokens { gemv: 1, gemm: 0 }, &mut [job])?;
            if i + 1 < self.layers.len() {
                self.cpu.activate(Activation::Relu, &mut out, bias.len());
            }
            x = out;
        }
        Ok(x.to_vec())
    }
}

/// Writes matrices and vectors of floats; a shape has the row length first.
pub(crate) fn write(path: &Path, tensors: &[(&str, &[u64], &[f32])]) -> Result<(), Box<dyn Error>> {
    let mut file = GgufWriter::new();
    for (name, shape, _) in tensors {
        file.tensor(name, GgmlType::F32, shape)?;
    }
    let mut data = file.begin(std::fs::File::create(path)?)?;
    for (name, _, values) in tensors {
        for value in *values {
            data.write(name, &value.to_le_bytes())?;
        }
    }
    data.finish()?;
    Ok(())
}

#[allow(dead_code, reason = "the test includes this file as a module")]
fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join("metallic-feed-forward.gguf");
    let hidden: &[f32] = &[1.0, 2.0, /* */ -1.0, 0.5, /* */ 0.0, -3.0]; // three rows of two weights
    let output: &[f32] = &[0.5, 1.0, -1.0];
    write(
        &path,
        &[
            ("encoder/kernel", &[2, 3], hidden),
            ("encoder/offset", &[3], &[0.0, 1.0, 0.5]),
            ("readout.w", &[3, 1], output),
            ("readout.b", &[1], &[0.25]),
        ],
    )?;
    let mut network =
        FeedForward::load(&path, &[("encoder/kernel", "encoder/offset"), ("readout.w", "readout.b")])?;
    println!("{} -> {:?}", path.display(), network.run(&[2.0, 3.0])?);
    Ok(())
}
