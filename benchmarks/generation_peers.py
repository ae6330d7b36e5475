"""The peers' side of benchmarks/generation.py: each generates the same prompts at the same endpoint, in an environment of its own.

Each is written the way its documentation shows, with retries on, rate limits out of the way and as many requests in flight as asked for.
Run by benchmarks/generation.py, which installs the environments: python benchmarks/generation_peers.py NAME URL COUNT IN_FLIGHT FOLDER
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGES = {
    "curator": "bespokelabs-curator==0.1.31",
    "distilabel": "distilabel[openai]==1.5.3 requests",
    "data_designer": "data-designer==0.9.6",
}


def prompts(count: int) -> Iterator[str]:
    return (f"Question {index}: what is {index} + {index % 97}?" for index in range(count))


def curator(url: str, count: int, in_flight: int, folder: Path) -> Any:
    import litellm

    # it counts tokens with a vocabulary that it would download; litellm ships the same file
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers")
    from bespokelabs import curator as package

    limits = {"max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**9, "max_concurrent_requests": in_flight}
    model = package.LLM(model_name="stub", backend="openai", backend_params={"base_url": url, "api_key": "none", **limits})

    def generate() -> int:
        found = model(list(prompts(count)))
        rows = getattr(found, "dataset", found)
        return sum(bool(row["response"]) for row in rows)

    return generate


def distilabel(url: str, count: int, in_flight: int, folder: Path) -> Any:
    from distilabel.models.llms import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    with Pipeline(cache_dir=folder) as pipeline:
        data = LoadDataFromDicts(data=[{"instruction": prompt} for prompt in prompts(count)], batch_size=in_flight)
        model = OpenAILLM(model="stub", base_url=url, api_key="none")
        data >> TextGeneration(llm=model, input_batch_size=in_flight)

    def generate() -> int:
        found = pipeline.run(use_cache=True)
        return sum(bool(row["generation"]) for row in found["default"]["train"])

    return generate


def data_designer(url: str, count: int, in_flight: int, folder: Path) -> Any:
    import data_designer.config as dd
    import pandas as pd
    from data_designer.interface import DataDesigner

    provider = dd.ModelProvider(name="stub", endpoint=url, api_key="none")
    parameters = dd.ChatCompletionInferenceParams(max_tokens=256, temperature=1.0, max_parallel_requests=in_flight)
    model = dd.ModelConfig(alias="model", model="stub", provider="stub", inference_parameters=parameters, skip_health_check=True)
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"question": list(prompts(count))})))
    builder.add_column(dd.LLMTextColumnConfig(name="answer", model_alias="model", prompt="{{ question }}"))
    designer = DataDesigner(artifact_path=folder, model_providers=[provider])

    def generate() -> int:
        found = designer.create(builder, num_records=count).load_dataset()
        return int(found["answer"].astype(bool).sum())

    return generate


def main() -> None:
    name, url, count, in_flight, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])
    for variable in ("HOME", "CURATOR_CACHE_DIR", "DISTILABEL_CACHE", "HF_HOME"):
        os.environ[variable] = str(folder)
    os.environ |= {"TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1", "NEMO_TELEMETRY_ENABLED": "false", "OTEL_SDK_DISABLED": "true"}
    generate = {"curator": curator, "distilabel": distilabel, "data_designer": data_designer}[name](url, count, in_flight, folder)
    began, used = time.perf_counter(), [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    rows = generate()
    wall = time.perf_counter() - began
    now = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime for after, before in zip(now, used, strict=True))
    print("\n" + json.dumps({"wall_s": wall, "cpu_ms": 1000 * cpu / count, "rows": rows}), flush=True)


if __name__ == "__main__":
    main()
