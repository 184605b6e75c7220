//! Which file of a repository is the model in a quantization: llama.cpp's rules, by name alone.

use metallic_gguf::split::{ShardName, parse_shard_name};

/// What is taken if the user leaves the choice to us and a repository has it.
pub(super) const DEFAULT: &str = "Q4_K_M";

/// How the ending of a model's file is written, in lower case.
const EXTENSION: &str = ".gguf";
/// What GGUF files have in their names that are no models: projectors of images, statistics of a calibration,
/// and models that draft for another.
const NO_MODELS: [&str; 6] = ["mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"];

/// Whether the name of a file is that of a GGUF file.
pub(super) fn is_gguf(path: &str) -> bool {
    path.to_ascii_lowercase().ends_with(EXTENSION)
}

/// Whether the name of a file is that of a model.
pub(super) fn is_model(path: &str) -> bool {
    let name = file_name(path).to_ascii_lowercase();
    is_gguf(path) && !NO_MODELS.iter().any(|sign| name.contains(sign))
}

/// The first model in this quantization. The first of its shards stands for all.
pub(super) fn find<'f>(paths: impl IntoIterator<Item = &'f str>, quant: &str) -> Option<&'f str> {
    paths.into_iter().find(|path| is_candidate(path) && has_quant(path, quant))
}

/// The model in this quantization; if none is asked for, the one in [`DEFAULT`], else the first.
pub(super) fn choose<'f>(paths: &[&'f str], quant: Option<&str>) -> Option<&'f str> {
    let copied = || paths.iter().copied();
    match quant {
        Some(quant) => find(copied(), quant),
        None => find(copied(), DEFAULT).or_else(|| copied().find(|path| is_candidate(path))),
    }
}

fn is_candidate(path: &str) -> bool {
    is_model(path) && parse_shard_name(file_name(path)).is_none_or(|shard| shard.no == 0)
}

/// Whether the quantization stands in the path as a word: `F16` is not in `BF16`, nor `Q4_K` in `Q4_K_M`.
fn has_quant(path: &str, quant: &str) -> bool {
    let (path, quant) = (path.to_ascii_lowercase(), quant.to_ascii_lowercase());
    path.match_indices(&quant).any(|(start, found)| {
        let before = path[..start].chars().next_back();
        let after = path[start + found.len()..].chars().next();
        before.is_none_or(|c| !c.is_ascii_alphanumeric()) && after.is_none_or(|c| ".-/".contains(c))
    })
}

/// The quantization that a file's name, or else its folder's, tells.
pub(super) fn of(path: &str) -> Option<&str> {
    let name = file_name(path);
    let stem =
        parse_shard_name(name).map_or_else(|| without_extension(name), |ShardName { prefix, .. }| prefix);
    let folder = path[..path.len() - name.len()].trim_end_matches('/');
    [stem, file_name(folder)].into_iter().find_map(|text| {
        let mut end = text.len();
        for word in text.rsplit(['-', '.']) {
            let mut start = end - word.len();
            if is_quant(word) {
                // Unsloth's own mixtures are marked before their type.
                start -= if text[..start].ends_with("UD-") { "UD-".len() } else { 0 };
                return Some(&text[start..end]);
            }
            end = start.saturating_sub(1);
        }
        None
    })
}

/// Whether the word is the name of a type: a family and bits, as `Q4_K_M`, `iq2_xxs`, `MXFP4_MOE` or `bf16`.
fn is_quant(word: &str) -> bool {
    let word = word.to_ascii_uppercase();
    let bits = ["Q", "IQ", "TQ", "MXFP", "NVFP", "BF", "FP", "F"]
        .iter()
        .find_map(|family| word.strip_prefix(family));
    bits.is_some_and(|bits| bits.starts_with(|c: char| c.is_ascii_digit()))
}

fn without_extension(name: &str) -> &str {
    if is_gguf(name) { &name[..name.len() - EXTENSION.len()] } else { name }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantization_is_a_word_of_the_path_in_any_case() {
        for (path, quant) in [
            ("m-Q4_K_M.gguf", "q4_k_m"),
            ("m.i1-q4_k_m.gguf", "Q4_K_M"),
            ("m-UD-Q4_K_XL.gguf", "Q4_K_XL"),
            ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
            ("Q8_0/m-00001-of-00002.gguf", "Q8_0"),
            ("m_Q8_0.gguf", "Q8_0"),
            ("m-Q8_0-00001-of-00002.gguf", "Q8_0"),
        ] {
            assert!(has_quant(path, quant), "{path} {quant}");
        }
        for (path, quant) in [
            ("m-BF16.gguf", "F16"),
            ("m-Q4_K_M.gguf", "Q4_K"),
            ("m-IQ4_XS.gguf", "Q4_XS"),
            ("m-Q8_0.gguf", "Q8"),
        ] {
            assert!(!has_quant(path, quant), "{path} {quant}");
        }
    }

    #[test]
    fn the_choice_is_q4_k_m_and_else_the_first_model() {
        let files =
            ["README.md", "imatrix.gguf", "mmproj-F16.gguf", "m-F16.gguf", "m-Q4_K_M.gguf", "M-Q8_0.GGUF"];
        assert_eq!(choose(&files, None), Some("m-Q4_K_M.gguf"));
        assert_eq!(choose(&files[..4], None), Some("m-F16.gguf"));
        assert_eq!(choose(&files[..3], None), None);
        assert_eq!(choose(&files, Some("f16")), Some("m-F16.gguf"));
        assert_eq!(choose(&files, Some("Q8_0")), Some("M-Q8_0.GGUF"));
        assert_eq!(choose(&files, Some("Q2_K")), None);
        let shards = ["q/m-Q2_K-00002-of-00002.gguf", "q/m-Q2_K-00001-of-00002.gguf"];
        assert_eq!(choose(&shards, None), Some(shards[1]));
        assert_eq!(choose(&shards, Some("q2_k")), Some(shards[1]));
    }

    #[test]
    fn names_tell_their_quantization() {
        for (path, quant) in [
            ("SmolLM2-135M-Instruct.Q4_1.gguf", Some("Q4_1")),
            ("Qwen3-8B-UD-IQ2_XXS.gguf", Some("UD-IQ2_XXS")),
            ("BF16/Qwen3-00001-of-00002.gguf", Some("BF16")),
            ("gpt-oss-20b-mxfp4.gguf", Some("mxfp4")),
            ("Llama-3.2-1B-f16-00001-of-00003.gguf", Some("f16")),
            ("model.gguf", None),
        ] {
            assert_eq!(of(path), quant, "{path}");
        }
    }
}
