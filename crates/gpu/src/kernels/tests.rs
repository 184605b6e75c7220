//! Every kernel with every decoder is text that each platform's compiler gets: also those that this machine lacks.

use naga::back::{hlsl, msl, pipeline_constants, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};

use super::{
    ATTENTION, CODES_BINDING, Grid, KERNELS, KV_TYPES, Kernel, MAX_GROUPS, Part, QUANTS,
    ROWS_SUBGROUP_OF_BYTES, gives_numbers, source,
};

/// Every kernel, with each decoder that it may be asked to use.
fn all() -> Vec<(&'static Kernel, Option<&'static Part>)> {
    let decoders = |kernel: &Kernel| -> Vec<Option<&'static Part>> {
        match kernel.name {
            _ if kernel.parts.iter().any(|part| part.name == "quants/bytes") => {
                let of_numbers = kernel.name == ROWS_SUBGROUP_OF_BYTES.name;
                let parts = QUANTS.iter().map(|(_, part)| part);
                parts.filter(|part| !of_numbers || gives_numbers(part)).map(Some).collect()
            }
            name if name == ATTENTION.name => KV_TYPES.iter().map(|format| Some(&format.decoder)).collect(),
            name if KV_TYPES.iter().any(|format| format.store.name == name) => {
                let formats = KV_TYPES.iter().filter(|format| format.store.name == name);
                formats.map(|format| Some(&format.decoder)).collect()
            }
            _ => vec![None],
        }
    };
    KERNELS.iter().flat_map(|kernel| decoders(kernel).into_iter().map(move |part| (*kernel, part))).collect()
}

/// A module with its `override`s set to something, as pipelines have it.
fn module(kernel: &Kernel, decoder: Option<&Part>) -> (Module, ModuleInfo) {
    let text = source(kernel, decoder);
    let fail =
        |error: String| -> ! { panic!("{} with {:?}: {error}", kernel.name, decoder.map(|part| part.name)) };
    let module =
        naga::front::wgsl::parse_str(&text).unwrap_or_else(|error| fail(error.emit_to_string(&text)));
    let mut capabilities = Capabilities::IMMEDIATES | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    for (word, capability) in [
        ("subgroup", Capabilities::SUBGROUP),
        ("enable f16", Capabilities::SHADER_FLOAT16),
        ("enable wgpu_cooperative_matrix", Capabilities::COOPERATIVE_MATRIX),
    ] {
        capabilities.set(capability, text.contains(word));
    }
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    let info = validator.validate(&module);
    let info = info.unwrap_or_else(|error| fail(error.emit_to_string(&text)));
    let overrides = module.overrides.iter().filter_map(|(_, constant)| constant.name.clone());
    // Of a few small matrices a subgroup computes some.
    let constants = overrides.map(|name| (name == "IN_SUBGROUP", name));
    let constants = constants.map(|(is_few, name)| (name, if is_few { 2.0 } else { 64.0 })).collect();
    let processed = pipeline_constants::process_overrides(&module, &info, None, &constants);
    let (module, info) = processed.unwrap_or_else(|error| fail(error.to_string()));
    (module.into_owned(), info.into_owned())
}

#[test]
fn every_kernel_becomes_spirv_msl_and_hlsl() {
    for (kernel, decoder) in all() {
        let (module, info) = module(kernel, decoder);
        let name = decoder.map_or(kernel.name.to_owned(), |part| format!("{}/{}", kernel.name, part.name));

        let entry =
            spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".to_owned() };
        let words = spv::write_vec(&module, &info, &spv::Options::default(), Some(&entry))
            .unwrap_or_else(|error| panic!("{name} as SPIR-V: {error}"));

        // What every Mac and iPhone has that wgpu runs on, and what those have that multiply small matrices.
        let has_matrices = source(kernel, decoder).contains("enable wgpu_cooperative_matrix");
        let lang_version = if has_matrices { (2, 3) } else { (2, 1) };
        let options = msl::Options { fake_missing_bindings: true, lang_version, ..msl::Options::default() };
        let (text, _) = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
            .unwrap_or_else(|error| panic!("{name} as MSL: {error}"));

        if has_matrices {
            println!(
                "{name}: {} words of SPIR-V, {} bytes of MSL, no HLSL has them",
                words.len(),
                text.len()
            );
            continue;
        }
        let options = hlsl::Options {
            immediates_target: Some(hlsl::BindTarget { space: 1, ..hlsl::BindTarget::default() }),
            special_constants_binding: Some(hlsl::BindTarget { space: 2, ..hlsl::BindTarget::default() }),
            ..hlsl::Options::default()
        };
        let mut hlsl_text = String::new();
        hlsl::Writer::new(&mut hlsl_text, &options, &hlsl::PipelineOptions::default())
            .write(&module, &info, None)
            .unwrap_or_else(|error| panic!("{name} as HLSL: {error}"));
        println!(
            "{name}: {} words of SPIR-V, {} bytes of MSL, {} of HLSL",
            words.len(),
            text.len(),
            hlsl_text.len()
        );
    }
}

#[test]
fn bindings_are_what_the_kernels_declare() {
    for (kernel, decoder) in all() {
        let (module, _) = module(kernel, decoder);
        let mut found = vec![None; CODES_BINDING as usize + 1];
        for (_, variable) in module.global_variables.iter() {
            let (Some(binding), naga::AddressSpace::Storage { access }) = (variable.binding, variable.space)
            else {
                continue;
            };
            let writes = access.contains(naga::StorageAccess::STORE);
            found[binding.binding as usize] =
                Some(if writes { super::Access::Write } else { super::Access::Read });
        }
        let mut expected: Vec<_> = kernel.bindings.iter().copied().map(Some).collect();
        expected.resize(CODES_BINDING as usize, None);
        expected.push(decoder.and_then(|decoder| decoder.codes).map(|_| super::Access::Read));
        assert_eq!(found, expected, "{} with {:?}", kernel.name, decoder.map(|part| part.name));
    }
}

#[test]
fn grids_hold_all_groups_in_dimensions_of_the_promised_size() {
    assert_eq!(Grid::Groups(0).size(), None);
    assert_eq!(Grid::Values(257).size(), Some([2, 1, 1]));
    assert_eq!(Grid::GroupsOf(5, 3).size(), Some([5, 1, 3]));
    for n in [1, 65_535, 65_536, 151_936, 5_000_001, usize::pow(2, 31)] {
        let [x, y, z] = Grid::Groups(n).size().unwrap();
        assert!(x <= MAX_GROUPS && y <= MAX_GROUPS && z == 1, "{n}");
        let all = u64::from(x) * u64::from(y);
        assert!((n as u64..n as u64 + u64::from(y)).contains(&all), "{n}: {x} by {y}");
    }
}
