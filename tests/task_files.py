"""Files of downstream tasks with made-up rows, one of every format that a task of this project reads."""

import json
from pathlib import Path
from typing import Any

# Task -> its file, its rows, and what the second row asks: context and answer, for each answer.
JSON_TASKS: dict[str, tuple[str, list[dict[str, Any]], list[tuple[str, str]]]] = {
    "megasbp_lambada": (
        "lambada_openai.jsonl",
        [
            {"context": "The baker kneads the dough and feeds the", "continuation": "oven"},
            {"context": "The queen takes the\nrook", "continuation": "king"},
            {"context": "A river\u2028meets the", "continuation": "delta"},
        ],
        [("The queen takes the\nrook", " king")],
    ),
    "megasbp_wikidata": (
        "bigbench_qa_wikidata.jsonl",
        [
            {"context": "The country of Prambanan is", "continuation": "Indonesia"},
            {"context": "The country of Zürich is", "continuation": "Switzerland"},
        ],
        [("The country of Zürich is", " Switzerland")],
    ),
    "megasbp_arc_easy": (
        "arc_easy.jsonl",
        [
            {"query": "Question: What shines?", "choices": ["a stone", "the sun"], "gold": 1},
            {"query": "Question: What swims?", "choices": ["a fish", "an oak", "bread", "salt"], "gold": 0},
            {"query": "Question: What rises?", "choices": ["dough", "a rook", "moss"], "gold": 0},
        ],
        [("Question: What swims?\nAnswer:", f" {one}") for one in ("a fish", "an oak", "bread", "salt")],
    ),
    "megasbp_arc_challenge": (
        "arc_challenge.jsonl",
        [
            {"query": "Question: What orbits?", "choices": ["a comet", "a dam"], "gold": 0},
            {"query": "Question: What floods?", "choices": ["a star", "rain"], "gold": 1},
        ],
        [("Question: What floods?\nAnswer:", " a star"), ("Question: What floods?\nAnswer:", " rain")],
    ),
    "megasbp_piqa": (
        "piqa.jsonl",
        [
            {"query": "Question: cut bread\n", "choices": ["with a knife", "with a drum"], "gold": 0},
            {"query": "Question: cross a river\n", "choices": ["by song", "by boat"], "gold": 1},
        ],
        [("Question: cross a river\nAnswer:", " by song"), ("Question: cross a river\nAnswer:", " by boat")],
    ),
    "megasbp_winogrande": (
        "winogrande.jsonl",
        [
            {"context_options": ["The oak", "The owl"], "continuation": "flew away.", "gold": 1},
            {"context_options": ["The moss", "The wolf"], "continuation": "was green.", "gold": 0},
        ],
        [("The moss", " was green."), ("The wolf", " was green.")],
    ),
    "megasbp_sciq": (
        "sciq_test.json",
        [
            {
                "support": "",
                "question": "What do owls eat?",
                "correct_answer": "mice",
                "distractor1": "oaks",
                "distractor2": "moss",
                "distractor3": "salt",
            },
            {
                "support": "Yeast makes gas. ",
                "question": "What makes dough rise?",
                "correct_answer": "yeast",
                "distractor1": "salt",
                "distractor2": "butter",
                "distractor3": "flour",
            },
        ],
        [
            ("Yeast makes gas.\nQuestion: What makes dough rise?\nAnswer:", f" {one}")
            for one in ("yeast", "salt", "butter", "flour")
        ],
    ),
    "megasbp_triviaqa": (
        "triviaqa_sm_sub.jsonl",
        [
            {"context": "Question: Who moves?\nAnswer:", "answer": "White", "aliases": ["White", "white"]},
            {
                "context": 'Question: Whose "opera"?\nAnswer:',
                "answer": "O'Neill",
                "aliases": ["Ö", "O'Neill"],
            },
        ],
        [('Question: Whose "opera"?\nAnswer:', " O'Neill"), ('Question: Whose "opera"?\nAnswer:', " Ö")],
    ),
    "megasbp_webqs": (
        "webq_test.json",
        [
            {"qId": "0", "answers": ["a lawyer"], "qText": "what did he do?"},
            {"qId": "1", "answers": ["Tony", "Warren", "Tony"], "qText": "who plays ken? "},
        ],
        [("Question: who plays ken?\nAnswer:", " Tony"), ("Question: who plays ken?\nAnswer:", " Warren")],
    ),
}
# Of two subjects: in one of them a column holds numbers only, and "None" and "1.0" must stay what they are.
_COLUMNS = "question,choice0,choice1,choice2,choice3,answer\n"
MMLU = {
    "algebra_test.csv": f'{_COLUMNS}"Find p, q.",0,4,2,6,1\nAnd?,1.0,1,01,3,3\n',
    "zoology_test.csv": f'{_COLUMNS}"Which ""owl""\nflies?",All,None,NA,nan,1\n',
}
MMLU_LETTERS = [("And?\nA. 1.0\nB. 1\nC. 01\nD. 3\nAnswer:", f" {letter}") for letter in "ABCD"]
MMLU_TEXTS = [("Question: And?\nAnswer:", f" {text}") for text in ("1.0", "1", "01", "3")]
# Task -> what its second document asks.
SECOND = {name: asked for name, (_, _, asked) in JSON_TASKS.items()} | {
    "megasbp_mmlu": MMLU_LETTERS,
    "megasbp_mmlu_text": MMLU_TEXTS,
}


def write_task_files(folder: Path) -> Path:
    """Writes them all and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows, _ in JSON_TASKS.values():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        text = lines if name.endswith(".jsonl") else json.dumps(rows, indent=1)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "mmlu").mkdir(exist_ok=True)
    for name, text in MMLU.items():
        (folder / "mmlu" / name).write_text(text, encoding="utf-8", newline="")
    return folder
