//! What `--help` shows below the options of each command: lines to copy.

use clap::Command;

/// Commands with a few ways to call them.
const EXAMPLES: [(&str, &[&str]); 19] = [
    (
        "generate",
        &[
            "openelm generate \"Once upon a time\"",
            "openelm generate \"The fox\" --model model/ --greedy -n 50 --json",
            "openelm generate --file prompt.txt --model tale.gguf --temperature 0.7 --stop \"THE END\"",
        ],
    ),
    (
        "chat",
        &[
            "openelm chat --model openelm-1.1b-instruct --system \"You answer briefly.\"",
            "openelm chat --model model.gguf --adapter mine/ --temperature 0.3",
            "openelm chat --model model/ --json < questions.jsonl",
        ],
    ),
    (
        "perplexity",
        &["openelm perplexity book.txt", "openelm perplexity book.txt --model model.gguf --window 512 --exact --json"],
    ),
    (
        "pretrain",
        &[
            "openelm pretrain --init runs/first texts",
            "openelm pretrain recipe.toml",
            "openelm pretrain recipe.toml --set train.steps=100 --set output=short --plain",
        ],
    ),
    (
        "tune",
        &[
            "openelm tune --model openelm-270m --data mine.jsonl --output runs/mine",
            "openelm tune --model model/ --data pairs.jsonl --dora --dpo --set adapter.rank=8",
            "openelm tune recipe.toml --set train.epochs=2",
        ],
    ),
    (
        "train-log",
        &["openelm train-log show runs/mine", "openelm train-log compare runs/mine runs/other --svg losses.svg"],
    ),
    (
        "plan",
        &[
            "openelm plan openelm-270m",
            "openelm plan --layers 12 --dim 512 --svg plan.svg",
            "openelm plan --train recipe.toml",
        ],
    ),
    ("logits", &["openelm logits builtin --text \"Once upon a time\"", "openelm logits model/ --ids 1,2,3 --exact"]),
    (
        "tokenizer",
        &[
            "openelm tokenizer train corpus/*.txt --output tokenizer.model --vocab-size 4096",
            "openelm tokenizer encode builtin \"Once upon a time\"",
            "openelm tokenizer decode builtin 1,2,3",
        ],
    ),
    ("average", &["openelm average run/checkpoints/step-900 run/checkpoints/step-1000 --output mean"]),
    (
        "pull",
        &[
            "openelm pull openelm-270m",
            "openelm pull OWNER/NAME --file \"*Q4_0.gguf\"",
            "openelm pull corenet/270M --force",
        ],
    ),
    (
        "bundle",
        &[
            "openelm bundle openelm-270m --for ios",
            "openelm bundle model.gguf phone --for android --memory 1.5G",
            "openelm bundle model/ --for web --quant q4_0 --json",
        ],
    ),
    (
        "bench",
        &[
            "openelm bench",
            "openelm bench model/ --quant q8_0,q4_0 --threads 1,2",
            "openelm bench --config openelm-1.1b",
        ],
    ),
    (
        "convert",
        &[
            "openelm convert builtin tale.gguf --to gguf --quant q4_0",
            "openelm convert checkpoint_average.pt model/ --to hf --dtype bf16",
            "openelm convert model/ model-mlx/ --to mlx --bits 4",
        ],
    ),
    (
        "compare",
        &["openelm compare builtin tale.gguf", "openelm compare a/model.safetensors b/ --text-file text.txt --json"],
    ),
    (
        "eval",
        &[
            "openelm eval --tasks arc_easy,hellaswag --data sets/ --limit 100",
            "openelm eval --model model/ --tasks openelm-zero-shot --output results --compare OpenELM-270M",
            "openelm eval --model model/ --tasks mmlu --num-fewshot 5 --data sets/ --output results",
            "openelm eval --model model/ --tasks arc_easy --data sets/ --sweep q8_0,q4_0,mlx4",
            "openelm eval --table openelm-paper",
        ],
    ),
    (
        "fuse",
        &[
            "openelm fuse model/ runs/mine/checkpoints/step-00000100 mine/ --to hf",
            "openelm fuse model/ lora/=0.5 mine.gguf --to gguf --quant q4_0",
        ],
    ),
    ("inspect", &["openelm inspect builtin", "openelm inspect model.gguf --json"]),
    (
        "completions",
        &[
            "openelm completions bash > ~/.local/share/bash-completion/completions/openelm",
            "openelm completions zsh > ~/.zfunc/_openelm",
        ],
    ),
];

/// `command` with the examples of its subcommands.
pub fn shown_by(mut command: Command) -> Command {
    for (name, examples) in EXAMPLES {
        if command.find_subcommand(name).is_some() {
            command = command.mut_subcommand(name, |subcommand| {
                let before = subcommand.get_after_help().map(|help| format!("{help}\n\n")).unwrap_or_default();
                subcommand.after_help(format!("{before}Examples:\n  {}", examples.join("\n  ")))
            });
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    /// The words of a line as a shell has them, up to a redirection.
    fn words(line: &str) -> Vec<String> {
        let parts = line.split('"').enumerate();
        let words = parts.flat_map(|(i, part)| match i % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        words.take_while(|word| word != ">" && word != "<").collect()
    }

    #[test]
    fn every_command_has_examples_and_understands_them() {
        let command = shown_by(Cli::command());
        for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "man") {
            let name = subcommand.get_name();
            let (_, examples) = EXAMPLES.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}"));
            let shown = subcommand.clone().render_long_help().to_string();
            for example in *examples {
                assert!(shown.contains(example), "{example}");
                let parsed = command.clone().try_get_matches_from(words(example));
                let parsed = parsed.unwrap_or_else(|e| panic!("{example}: {e}"));
                assert_eq!(parsed.subcommand_name(), Some(name));
            }
        }
    }
}
