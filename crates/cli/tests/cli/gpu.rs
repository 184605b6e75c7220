//! `metallic devices`, `--device` and `--vram`. Where there is no driver, tests that need one say so and pass; with
//! `METALLIC_REQUIRE_GPU` they fail.

use serde_json::Value;

use crate::sandbox::Sandbox;

/// The number of a device, for `--device`. Of several, the last: software drivers come after cards.
fn device(sandbox: &Sandbox) -> Option<String> {
    let listed: Value = serde_json::from_str(&sandbox.run(&["devices", "--json"]).succeeds().stdout).unwrap();
    let devices = listed.as_array().unwrap();
    if let Some(device) = devices.last() {
        assert!(
            device["name"].is_string() && device["max_binding_bytes"].as_u64() >= Some(1 << 27),
            "{device}"
        );
        let bytes = |key: &str| device[key].as_u64();
        if let (Some(memory), Some(available)) = (bytes("memory_bytes"), bytes("available_bytes")) {
            assert!((1..=memory).contains(&available), "{device}");
        }
        return Some(device["index"].to_string());
    }
    assert!(std::env::var_os("METALLIC_REQUIRE_GPU").is_none(), "no GPU");
    println!("skipped: no GPU");
    None
}

fn sandbox(test: &str) -> Sandbox {
    let sandbox = Sandbox::new(test);
    sandbox.write("tiny.gguf", metallic::testing::tiny_model().unwrap());
    sandbox
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_says_how_to_list_them() {
    let sandbox = sandbox("gpu-unknown");
    let refused = sandbox.run(&["run", "-m", "tiny.gguf", "--device", "no such device", "--raw", "a"]);
    let error = refused.fails(1);
    assert!(error.contains("can't use a GPU") && error.contains("metallic devices"), "{error}");
}

#[test]
fn a_gpu_gives_the_answer_of_the_cpu_and_tells_what_it_did() {
    let sandbox = sandbox("gpu-run");
    let Some(device) = device(&sandbox) else { return };
    let run = |more: &[&str]| {
        let args = ["run", "-m", "tiny.gguf", "--raw", "--temp", "0", "-n", "12", "-c", "128", "abc"];
        sandbox.run(&[&args[..], more].concat()).succeeds()
    };
    let expected = run(&["--device", "cpu"]).stdout;
    assert!(!expected.is_empty());
    for more in [&["--vram", "64MiB"][..], &["--vram", "64MiB", "-ngl", "1"], &["--vram", "64MiB", "--stats"]]
    {
        let found = run(&[&["--device", &device], more].concat());
        assert_eq!(found.stdout, expected, "{more:?}");
        if more.contains(&"--stats") {
            assert!(found.stderr.lines().any(|line| line.starts_with("GPU: ")), "{}", found.stderr);
        }
    }
    assert_eq!(run(&["--device", &device, "--gpu-layers", "0"]).stdout, expected);
}

#[test]
fn long_prompts_have_networks_swapped_to_a_gpu() {
    let sandbox = sandbox("gpu-op-offload");
    let Some(device) = device(&sandbox) else { return };
    let flags = ["--device", &device, "-c", "128", "--vram"];
    let plan = |more: &[&str]| -> Value {
        let args = [&["plan", "tiny.gguf", "--json"], &flags[..], &["64MiB"], more].concat();
        serde_json::from_str(&sandbox.run(&args).succeeds().stdout).unwrap()
    };
    // Of two layers the last is the GPU's, and one network is lent.
    let lent = plan(&["-ngl", "1", "--op-offload", "40"]);
    assert_eq!(
        (&lent["long_prompts_from"], &lent["devices"][0]["n_networks_of_long_prompts"]),
        (&40.into(), &1.into())
    );
    assert!(lent["lent_bytes"].as_u64() > Some(0), "{lent}");
    // Nothing is measured where layers are given, nothing is lent where all are there, and nobody lends by order.
    for more in [&["-ngl", "1"][..], &["-ngl", "1", "--op-offload", "off"], &["--op-offload", "40"]] {
        assert_eq!(plan(more)["long_prompts_from"], Value::Null, "{more:?}");
    }
    let idle = [&["plan", "tiny.gguf", "--op-offload", "40"], &flags[..], &["64MiB"]].concat();
    let told = sandbox.run(&idle).succeeds().stderr;
    assert!(told.contains("--op-offload has no effect: the GPU computes all networks"), "{told}");
    // A GPU that is said to be fast is lent networks, here those with experts, and a slow one is not.
    sandbox.write("mixture.gguf", metallic::testing::tiny_mixture().unwrap());
    let auto = |gop_s| -> Value {
        let cpu = ["--memory-gb-s", "10", "--prefill-gop-s", "10", "--decode-gop-s", "10"];
        let gpu =
            ["--link-gb-s", "10", "--gpu-memory-gb-s", "100", "--gpu-prefill-gop-s", gop_s, "--cpu-moe"];
        let args = [&["plan", "mixture.gguf", "--json"], &flags[..], &["64MiB"], &cpu, &gpu].concat();
        serde_json::from_str(&sandbox.run(&args).succeeds().stdout).unwrap()
    };
    let (fast, slow) = (auto("1000"), auto("1"));
    let from = fast["long_prompts_from"].as_u64().unwrap();
    assert!(from >= 32 && from.is_power_of_two() && fast["lent_bytes"].as_u64() > Some(0), "{fast}");
    assert!(fast["prediction"]["prefill"]["link_s"].as_f64() > Some(0.0), "{fast}");
    assert_eq!((&slow["long_prompts_from"], &slow["lent_bytes"]), (&Value::Null, &0.into()));

    let text = "a b c ".repeat(20);
    let run = |more: &[&str]| {
        let args = ["run", "-m", "tiny.gguf", "--raw", "--temp", "0", "-n", "4", "--stats"];
        let ran = [&args, &flags[..], &["64MiB", "-ngl", "1"], more, &[&text]].concat();
        sandbox.run(&ran).succeeds().stderr.contains("of weights swapped in")
    };
    assert!(run(&["--op-offload", "16"]) && !run(&["--op-offload", "off"]));
    let refused = sandbox.run(&["plan", "tiny.gguf", "--op-offload", "some"]);
    assert!(refused.stderr.contains("a number of tokens, off or auto"), "{}", refused.stderr);
}

#[test]
fn a_plan_fills_a_budget_of_the_gpus_memory_and_names_what_is_too_small() {
    let sandbox = sandbox("gpu-plan");
    let Some(device) = device(&sandbox) else { return };
    let plan = |vram: &str| {
        let args =
            ["plan", "tiny.gguf", "-c", "64", "-b", "32", "--device", &device, "--vram", vram, "--json"];
        sandbox.run(&args)
    };
    let all: Value = serde_json::from_str(&plan("64MiB").succeeds().stdout).unwrap();
    let gpu = &all["devices"][0];
    assert_eq!((&gpu["n_mixers"], &gpu["n_networks"]), (&2.into(), &2.into()), "{gpu}");
    let lines = all["ledger"].as_array().unwrap().iter().filter(|line| line["device"] == 0);
    let total: u64 = lines.map(|line| line["bytes"].as_u64().unwrap()).sum();
    assert_eq!(gpu["total_bytes"], total);
    // Not a byte less holds all.
    let exact: Value = serde_json::from_str(&plan(&total.to_string()).succeeds().stdout).unwrap();
    assert_eq!(exact["devices"][0]["total_bytes"], total);
    let less: Value = serde_json::from_str(&plan(&(total - 1).to_string()).succeeds().stdout).unwrap();
    // Of the embedding a token uses a row: it goes first.
    let gpu = &less["devices"][0];
    assert_eq!((&gpu["embedding"], &gpu["head"], &gpu["n_mixers"]), (&false.into(), &true.into(), &2.into()));
    assert!(gpu["total_bytes"].as_u64() < Some(total), "{gpu}");
    // The backend itself takes more than a megabyte. With what it says it takes, the error is of the model.
    let refused = plan("1MiB");
    let error = refused.fails(1);
    assert!(error.contains("within 1.0 MiB") && error.contains("--vram"), "{error}");
    let floor = error.split(['(', ' ']).rev().find_map(|word| word.parse::<u64>().ok()).expect(error);
    let refused = plan(&floor.to_string());
    let error = refused.fails(1);
    assert!(error.contains("half a layer"), "{error}");
    // What it says is enough.
    let floor = error
        .split_once(" bytes)")
        .and_then(|(before, _)| before.rsplit_once('('))
        .expect(error)
        .1
        .to_owned();
    plan(&floor).succeeds();
    let below = (floor.parse::<u64>().unwrap() - 1).to_string();
    assert!(plan(&below).fails(1).contains(&floor));
}

#[test]
fn more_memory_than_the_gpu_has_is_an_error_that_says_both() {
    let sandbox = sandbox("gpu-too-much");
    let Some(device) = device(&sandbox) else { return };
    let refused = sandbox.run(&["plan", "tiny.gguf", "--device", &device, "--vram", "999TiB"]);
    let error = refused.fails(1);
    assert!(error.contains("--vram asks for 999.0 TiB") && error.contains(" has "), "{error}");
}

#[test]
fn the_list_says_what_is_free() {
    let sandbox = sandbox("gpu-list");
    if device(&sandbox).is_none() {
        return;
    }
    let listed = sandbox.run(&["devices"]).succeeds().stdout;
    let heading = listed.lines().next().unwrap();
    assert!(heading.contains("MEMORY") && heading.contains("FREE"), "{heading}");
}

/// Whether or not the driver gives any out, and whatever is found where they are kept.
#[cfg(unix)]
#[test]
fn compiled_kernels_are_kept_and_what_is_wrong_with_them_is_no_matter() {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    let sandbox = sandbox("gpu-kernels");
    let Some(device) = device(&sandbox) else { return };
    let run = || {
        let args = ["run", "-m", "tiny.gguf", "--raw", "--temp", "0", "-n", "3", "-c", "64", "abc"];
        let found = sandbox.run(&[&args[..], &["--device", &device, "--vram", "64MiB"]].concat()).succeeds();
        assert!(!found.stderr.contains("warn") && !found.stderr.contains("WARN"), "{}", found.stderr);
        found.stdout
    };
    let expected = run();
    if !sandbox.path("cache/kernels").exists() {
        return println!("skipped: this driver gives out no kernels");
    }
    let names = sandbox.names("cache/kernels");
    let [name] = &names[..] else { panic!("{names:?}") };
    let path = sandbox.path("cache/kernels").join(name);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read(&path).unwrap();
    assert_eq!(run(), expected);
    for garbage in [Vec::new(), b"garbage".to_vec(), kept[..kept.len() / 2].to_vec()] {
        fs::write(&path, &garbage).unwrap();
        assert_eq!(run(), expected);
        assert_eq!(fs::read(&path).unwrap().len(), kept.len(), "it is written anew");
    }
    assert_eq!(sandbox.names("cache/kernels"), names);
    // What is in the way of the file, or of the folder.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(run(), expected);
    fs::remove_dir_all(sandbox.path("cache/kernels")).unwrap();
    sandbox.write("cache/kernels", "");
    assert_eq!(run(), expected);
}

#[test]
fn flags_of_a_gpu_without_one_are_told() {
    let sandbox = sandbox("gpu-flags");
    let plan = |more: &[&str]| sandbox.run(&[&["plan", "tiny.gguf"], more].concat());
    for without in [["--device", "cpu"], ["--gpu-layers", "0"]] {
        let refused = plan(&[&without[..], &["--vram", "1GiB"]].concat());
        let error = refused.fails(2);
        assert!(error.contains("--vram") && error.contains(&without.join(" ")), "{error}");
    }
    for flag in [&["--cpu-moe"][..], &["--n-cpu-moe", "3"], &["--op-offload", "64"]] {
        let planned = plan(flag).succeeds();
        assert!(planned.stderr.contains(&format!("{} has no effect", flag[0])), "{}", planned.stderr);
    }
    assert!(!plan(&["--n-cpu-moe", "0"]).succeeds().stderr.contains("no effect"));
    let refused = plan(&["--n-cpu-moe", "x"]);
    assert!(refused.stderr.contains("a number of layers"), "{}", refused.stderr);
}

#[test]
fn what_computes_is_named_for_programs_and_in_the_table_of_bench() {
    let sandbox = sandbox("gpu-named");
    let Some(device) = device(&sandbox) else { return };
    let with = |args: &[&str], flags: &[&str]| sandbox.run(&[args, flags].concat()).succeeds().stdout;
    let gpu = ["--device", &device, "--vram", "64MiB"];
    let names_it = |devices: &Value| matches!(devices.as_array().unwrap()[..], [Value::String(ref name)] if name.starts_with("GPU "));

    let run = ["run", "-m", "tiny.gguf", "--raw", "--json", "-n", "2", "-c", "64", "a"];
    let end = |flags: &[&str]| -> Value {
        serde_json::from_str(with(&run, flags).lines().next_back().unwrap()).unwrap()
    };
    assert!(names_it(&end(&gpu)["devices"]), "{}", end(&gpu));
    assert_eq!(end(&[])["devices"], Value::Array(Vec::new()));

    let bench = ["bench", "tiny.gguf", "-p", "4", "-n", "0", "-r", "1"];
    let rows: Value = serde_json::from_str(&with(&bench, &[&gpu[..], &["--json"]].concat())).unwrap();
    assert!(names_it(&rows[0]["devices"]), "{rows}");
    assert!(with(&bench, &gpu).contains(" + GPU "));
}

#[test]
fn layers_that_have_no_room_are_swapped_in_and_the_answer_is_the_same() {
    let sandbox = sandbox("gpu-swap");
    sandbox.write("mixture.gguf", metallic::testing::tiny_mixture().unwrap());
    let Some(device) = device(&sandbox) else { return };
    let with = |command: &[&str], vram: &str| {
        let flags = ["-c", "64", "-b", "32", "-ngl", "all", "--device", &device, "--vram", vram];
        sandbox.run(&[command, &flags].concat())
    };
    let rates = ["--memory-gb-s", "10", "--prefill-gop-s", "100", "--decode-gop-s", "50", "--link-gb-s", "2"];
    let of_gpu = ["--gpu-memory-gb-s", "4", "--gpu-prefill-gop-s", "800"];
    let plan_args = [&["plan", "mixture.gguf", "--json"], &rates[..], &of_gpu].concat();
    let plan = |vram: &str| with(&plan_args, vram);
    let all: Value = serde_json::from_str(&plan("64MiB").succeeds().stdout).unwrap();
    assert_eq!(all["swapped_bytes"], 0);
    let weights = all["ledger"]
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["what"] == "weights" && line["device"] == 0);
    let without_weights =
        all["devices"][0]["total_bytes"].as_u64().unwrap() - weights.unwrap()["bytes"].as_u64().unwrap();

    // The error names the least that will do.
    let refused = plan(&without_weights.to_string());
    let error = refused.fails(1);
    let floor =
        error.split_once(" bytes)").and_then(|(before, _)| before.rsplit_once('(')).unwrap().1.to_owned();
    let least: Value = serde_json::from_str(&plan(&floor).succeeds().stdout).unwrap();
    assert!(least["swapped_bytes"].as_u64() > Some(0), "{least}");

    // What a token uses comes by the link: all, but of 64 experts 4. The GPU reads the same.
    let decode = |plan: &Value| plan["prediction"]["decode"].clone();
    let seconds = |plan: &Value, part: &str| decode(plan)[part].as_f64().unwrap();
    let is_of_experts = |matrix: &&Value| matrix["name"].as_str().unwrap().contains("_exps");
    let of_experts = least["matrices"].as_array().unwrap().iter().filter(is_of_experts);
    let of_experts: f64 = of_experts.map(|matrix| matrix["bytes"].as_f64().unwrap()).sum();
    let used = least["swapped_bytes"].as_f64().unwrap() - of_experts * 60.0 / 64.0;
    assert!(
        of_experts > 0.0 && (seconds(&least, "link_s") * 2e9 / used - 1.0).abs() < 1e-9,
        "{}",
        decode(&least)
    );
    assert_eq!((seconds(&all, "link_s"), &decode(&least)["bound"]), (0.0, &"link".into()));
    let read = seconds(&all, "gpu_memory_s") * 4e9;
    assert!(read > 0.0 && read < weights.unwrap()["bytes"].as_f64().unwrap(), "{}", decode(&all));
    assert_eq!(seconds(&all, "gpu_memory_s"), seconds(&least, "gpu_memory_s"));

    // Where no layers are asked for it is what the link is worth.
    let auto = |link: &str| -> Value {
        let cpu = ["--memory-gb-s", "10", "--prefill-gop-s", "100", "--decode-gop-s", "50"];
        let gpu = ["--link-gb-s", link, "--gpu-memory-gb-s", "100", "--gpu-prefill-gop-s", "800"];
        let flags =
            ["plan", "mixture.gguf", "--json", "-c", "64", "-b", "32", "--device", &device, "--vram", &floor];
        serde_json::from_str(&sandbox.run(&[&flags[..], &cpu, &gpu].concat()).succeeds().stdout).unwrap()
    };
    let (slow, fast) = (auto("2"), auto("200"));
    assert_eq!(slow["swapped_bytes"], 0, "{slow}");
    assert_eq!(fast["swapped_bytes"], least["swapped_bytes"], "{fast}");
    let speed = |plan: &Value| decode(plan)["tokens_per_s"].as_f64().unwrap();
    assert!(speed(&fast) > speed(&slow), "{} and {}", speed(&fast), speed(&slow));

    let run_args = ["run", "-m", "mixture.gguf", "--raw", "--temp", "0", "-n", "12", "--stats", "abc"];
    let run = |vram: &str| with(&run_args, vram).succeeds();
    let (roomy, tight) = (run("64MiB"), run(&floor));
    assert_eq!(roomy.stdout, tight.stdout);
    let is_swapped =
        |stderr: &str| stderr.lines().any(|line| line.starts_with("GPU: ") && line.contains("swapped in"));
    assert!(!is_swapped(&roomy.stderr) && is_swapped(&tight.stderr), "{}", tight.stderr);
}

/// The same GPU stands for two, which share the layers between them, and the answer is that of one.
#[test]
fn several_gpus_share_the_layers() {
    let sandbox = sandbox("gpu-several");
    sandbox.write("mixture.gguf", metallic::testing::tiny_mixture().unwrap());
    let Some(device) = device(&sandbox) else { return };
    let twice = format!("{device},{device}");
    let with =
        |command: &[&str], flags: &[&str]| sandbox.run(&[command, &["-c", "64", "-b", "32"], flags].concat());
    let rates = ["--memory-gb-s", "10", "--prefill-gop-s", "100", "--decode-gop-s", "50", "--link-gb-s", "2"];
    let of_gpu = ["--gpu-memory-gb-s", "4", "--gpu-prefill-gop-s", "800"];
    let plan_args = [&["plan", "mixture.gguf", "--json"], &rates[..], &of_gpu].concat();
    let plan = |flags: &[&str]| -> Value {
        serde_json::from_str(&with(&plan_args, flags).succeeds().stdout).unwrap()
    };
    let one = plan(&["--device", &device, "--vram", "64MiB"]);
    let n_layers =
        |device: &Value| device["n_mixers"].as_u64().unwrap() + device["n_networks"].as_u64().unwrap();
    let all = n_layers(&one["devices"][0]);

    // Less than one takes for all by some experts: the second has what is left.
    let less = (one["devices"][0]["total_bytes"].as_u64().unwrap() - (1 << 20)).to_string();
    let budgets = format!("{less},64MiB");
    let flags = ["--device", &twice, "--vram", &budgets];
    let both = plan(&flags);
    let [first, second] = [0, 1].map(|i| n_layers(&both["devices"][i]));
    assert!(first > 0 && second > 0 && first + second == all, "{first} and {second} of {all}: {both}");
    assert_eq!(both["swapped_bytes"], 0);

    // With room for all on each, the one that is said to be faster has all; the slower one what is left of a smaller budget.
    let measured = |memory: &str, budgets: &str| {
        let given = ["--gpu-memory-gb-s", memory, "--gpu-prefill-gop-s", "800"];
        let args = [&["plan", "mixture.gguf", "--json"], &rates[..], &given].concat();
        let flags = ["--device", &twice, "--vram", budgets];
        let plan: Value = serde_json::from_str(&with(&args, &flags).succeeds().stdout).unwrap();
        let tokens_per_s = plan["prediction"]["decode"]["tokens_per_s"].as_f64().unwrap();
        ([0, 1].map(|i| n_layers(&plan["devices"][i])), tokens_per_s)
    };
    assert_eq!(measured("8,4", "64MiB,64MiB").0, [all, 0]);
    assert_eq!(measured("4,8", "64MiB,64MiB").0, [0, all]);
    // Which was named first is no matter.
    let ([faster, slower], one_way) = measured("8,4", &format!("{less},64MiB"));
    assert!(slower > 0 && faster > 0 && slower + faster == all, "{slower} and {faster} of {all}");
    let (other, other_way) = measured("4,8", &format!("64MiB,{less}"));
    assert_eq!(other, [slower, faster]);
    assert!((other_way / one_way - 1.0).abs() < 1e-9, "{one_way} and {other_way}");

    let run_args = ["run", "-m", "mixture.gguf", "--raw", "--temp", "0", "-n", "12", "abc"];
    let answer = |flags: &[&str]| with(&run_args, flags).succeeds().stdout;
    let of_one = answer(&["--device", &device, "--vram", "64MiB"]);
    assert_eq!(answer(&flags), of_one);
    // All that was asked for is computed there: by the last, which swaps what it has no room for.
    let tight = format!("{less},{}", both["devices"][1]["total_bytes"].as_u64().unwrap());
    assert_eq!(answer(&["--device", &twice, "--vram", &tight, "-ngl", "all"]), of_one);

    for (flags, reason) in [
        (["--device", "0,cpu", "--vram", "64MiB,64MiB"], "cpu or auto among them"),
        (["--device", "0,0", "--vram", "64MiB"], "--vram has 1 sizes, and --device 2"),
    ] {
        let ended = with(&run_args, &flags);
        let error = ended.fails(2);
        assert!(error.contains(reason), "{error}");
    }
    let three = with(
        &["plan", "mixture.gguf", "--link-gb-s", "1,2,3"],
        &["--device", &twice, "--vram", "64MiB,64MiB"],
    );
    assert!(three.fails(2).contains("several numbers, and there are 2 GPUs"), "{}", three.stderr);
}
