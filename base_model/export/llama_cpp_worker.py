"""The process that holds llama.cpp: reads a request (JSON file), writes the answer (JSON file). See ``llama_cpp``."""

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from base_model.export.process_memory import peak_memory


def main() -> None:
    """Answer one request."""
    request = json.loads(Path(sys.argv[1]).read_text())
    answer = {"complete": _complete, "tokenize": _tokenize}[request["task"]](request)
    answer["peak_bytes"] = peak_memory()
    target = Path(sys.argv[2])
    part = target.with_suffix(".part")
    part.write_text(json.dumps(answer))
    part.rename(target)


def _server(request: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = request["model"]
    params.n_ctx = request.get("context", 512)
    params.n_parallel = 1
    params.warmup = False
    # Halves in the attention or its cache cost 1e-3 in log-probs each.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request.get("threads", 1)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    if request.get("projector"):
        params.mmproj.path = request["projector"]
    return xllamacpp.Server(params)


def _post(server: Any, path: str, body: dict[str, Any]) -> Any:
    data = json.dumps(body).encode()
    call = urllib.request.Request(server.listening_address + path, data, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(call, timeout=1800) as reply:
        return json.load(reply)


def _complete(request: dict[str, Any]) -> dict[str, Any]:
    server = _server(request)
    prompt: Any = request["prompt"]
    if request["images"]:
        prompt = {"prompt_string": prompt, "multimodal_data": request["images"]}
    body = {
        "prompt": prompt,
        "n_predict": request["max_tokens"],
        "temperature": 0.0,
        "n_probs": 1,
        "cache_prompt": False,
        "return_tokens": True,
        "logit_bias": [[token, False] for token in request["banned"]],
    }
    reply = _post(server, "/completion", body)
    reported = [{"id": each["id"], "logprob": each["logprob"]} for each in reply.get("completion_probabilities", [])]
    ids, read = reply["tokens"], reply["tokens_evaluated"]
    return {"text": reply["content"], "ids": ids, "reported": reported, "prompt_tokens": read}


def _tokenize(request: dict[str, Any]) -> dict[str, Any]:
    server = _server(request)
    body = [{"content": text, "add_special": False, "parse_special": True} for text in request["texts"]]
    return {"ids": [_post(server, "/tokenize", each)["tokens"] for each in body]}


if __name__ == "__main__":
    main()
