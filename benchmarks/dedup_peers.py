"""The peers' side of benchmarks/near_dedup.py and benchmarks/decontamination.py: each works on the same texts, in an environment of its own.

Each is used the way its documentation shows, with one process, word 5-grams and a threshold of 0.8 where it has one, and digits and
punctuation as it leaves them. CPU time and peak memory are those of the process with its children; where a tool reads and writes files, that is part of it.

    python benchmarks/dedup_peers.py TOOL FILE FOLDER
    FILE: for near duplicates lines of "family <tab> text"; for contamination JSON with "items" and "documents". Prints JSON, one line.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = {
    "text_dedup": "text-dedup==0.4.0 --no-deps, then click-option-group datasets ftfy regex rich scipy setuptools xxhash zstandard psutil",
    "datatrove": "datatrove==0.9.0 --no-deps, then 'huggingface-hub<1' dill fsspec humanize loguru multiprocess nltk orjson regex rich spacy tldextract tokenizers tqdm xxhash==3.5.0",
    "data_juicer": "py-data-juicer==1.6.1 (it imports ray without asking for it: add ray)",
    "janitor": "lm-eval==0.4.13 --no-deps, then nltk zstandard tqdm jsonlines",
}
"""What to install into `PEERS/<name>`, a virtual environment each."""
ENVIRONMENT = {"janitor": "lm_eval"}
N, LONG, THRESHOLD = 5, 13, 0.8


def interpreter(tool: str, peers: Path | None) -> Path | None:
    """The Python of a peer's environment; None, with a line on how to make it, where there is none."""
    folder = ENVIRONMENT.get(tool, tool.removesuffix("_decont"))
    path = None if peers is None else peers / folder / "bin" / "python"
    if path is None or not path.exists():
        package = PACKAGES[tool.removesuffix("_decont")]
        print(f"{tool}: not installed: python -m venv PEERS/{folder}; PEERS/{folder}/bin/pip install {package}; then --peers PEERS")
        return None
    return path


def written(texts: list[str], folder: Path) -> Path:
    path = folder / "in" / "texts.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps({"id": str(number), "text": text}) + "\n" for number, text in enumerate(texts)))
    return path


# ── near duplicates: texts → numbers of the documents that are dropped ─────────────────────────────────────────────────
def text_dedup(texts: list[str], folder: Path) -> set[int]:
    from datasets import load_from_disk

    source = written(texts, folder)
    shape = ["--ngram", str(N), "--min_length", "1", "--threshold", str(THRESHOLD), "--num_perm", "128", "--num_proc", "1"]
    files = ["--path", "json", "--data_files", str(source), "--split", "train", "--column", "text", "--output", str(folder / "out")]
    files += ["--cache_dir", str(folder / "cache")]
    subprocess.run([sys.executable, "-m", "text_dedup.minhash", *files, *shape], check=True, stdout=sys.stderr)
    return set(range(len(texts))) - {int(number) for number in load_from_disk(str(folder / "out"))["id"]}


def datatrove(texts: list[str], folder: Path) -> set[int]:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    source = written(texts, folder).parent
    config = MinhashConfig(n_grams=N, num_buckets=16, hashes_per_bucket=8, hash_config=HashConfig(precision=64))
    read, places = JsonlReader(str(source)), [str(folder / name) for name in ("signatures", "buckets", "remove", "kept")]
    steps: list[list[Any]] = [
        [read, MinhashDedupSignature(places[0], config)],
        [MinhashDedupBuckets(places[0], places[1], config=config)],
        [MinhashDedupCluster(places[1], places[2], config=config)],
        [read, MinhashDedupFilter(places[2]), JsonlWriter(places[3], compression=None)],
    ]
    for number, step in enumerate(steps):
        tasks = config.num_buckets if number == 1 else 1
        LocalPipelineExecutor(step, tasks=tasks, workers=1, logging_dir=str(folder / f"log{number}")).run()
    kept = {int(json.loads(line)["id"]) for path in Path(places[3]).glob("*.jsonl") for line in path.open()}
    return set(range(len(texts))) - kept


def data_juicer(texts: list[str], folder: Path) -> set[int]:
    from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator
    from datasets import Dataset

    operator = DocumentMinhashDeduplicator(tokenization="space", window_size=N, jaccard_threshold=THRESHOLD, num_permutations=128)
    data = Dataset.from_list([{"id": number, "text": text} for number, text in enumerate(texts)])
    kept, _ = operator.process(data.map(operator.compute_hash))
    return set(range(len(texts))) - set(kept["id"])


# ── contamination: items → documents → whether each is contaminated ────────────────────────────────────────────────────
Look = Callable[[list[str]], list[bool]]


def janitor(items: list[str]) -> Look:
    from lm_eval.decontamination.janitor import Janitor, word_ngrams_indices

    tool = Janitor(ngram_n=LONG)
    for item in items:
        tool.register_contaminant_python(item)

    def dirty(text: str) -> bool:
        """`clean_python` up to its search; what it does with what it finds is not asked."""
        return any(tool.normalize_string(found) in tool.dirt_ngrams for found, _ in word_ngrams_indices(text, LONG))

    return lambda texts: [dirty(text) for text in texts]


def datatrove_decont(items: list[str]) -> Look:
    """Its filter; the index is filled by its own tokeniser and hash, since its indexer asks for lighteval."""
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.utils.text import ngrams, simplify_text

    config = NGramsDecontConfig(n_grams=LONG)
    tool = NGramsDecontFilter(".", config)
    split = (tool.tokenizer.word_tokenize(simplify_text(item, config.norm_config)) for item in items)
    tool._index_hashes = {tool.hash_func(" ".join(found)): "items" for tokens in split for found in ngrams(tokens, LONG)}
    return lambda texts: [tool.filter(Document(text=text, id="")) is not True for text in texts]


NEAR: dict[str, Callable[[list[str], Path], set[int]]] = {"text_dedup": text_dedup, "datatrove": datatrove, "data_juicer": data_juicer}
CONTAMINATED: dict[str, Callable[[list[str]], Look]] = {"janitor": janitor, "datatrove_decont": datatrove_decont}


def used() -> tuple[float, float]:
    """CPU seconds and peak megabytes so far, of this process and its children."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(item.ru_utime + item.ru_stime for item in found), max(item.ru_maxrss for item in found) / 1024


def near(tool: str, path: Path, folder: Path) -> dict[str, Any]:
    texts = [line.partition("\t")[2] for line in path.read_text().splitlines()]
    (cpu, before), began = used(), time.perf_counter()
    dropped = NEAR[tool](texts, folder)
    after, peak = used()
    wall = time.perf_counter() - began
    return {"rate": len(texts) / (after - cpu), "wall": wall, "before_mb": before, "peak_mb": peak, "dropped": sorted(dropped)}


def contaminated(tool: str, path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    cpu, _ = used()
    look = CONTAMINATED[tool](data["items"])
    built, _ = used()
    found = look(data["documents"])
    after, peak = used()
    return {"rate": len(found) / (after - built), "build": built - cpu, "peak_mb": peak, "found": found}


def main() -> None:
    tool, path, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
    result = near(tool, path, folder) if tool in NEAR else contaminated(tool, path)
    print("\n" + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
