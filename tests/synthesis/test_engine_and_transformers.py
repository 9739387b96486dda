import pytest
import torch
from synthesis_world import EOS, make_engine, make_requests, tiny_model

from megasbp.model.hugging_face import export_hugging_face


def test_greedy_documents_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = tiny_model()
    state = model.state_dict()

    def fill(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensor.copy_(state[name])

    export_hugging_face(model.config, fill, tmp_path / "exported")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype=torch.float32)
    requests = make_requests(12)
    completions = make_engine(model, temperature=0.0).generate(requests, 24)
    assert len({completion.tokens.tobytes() for completion in completions}) > 6
    for request, completion in zip(requests, completions, strict=True):
        prompt = torch.tensor(request.prompt)[None]
        generated = theirs.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=EOS,
            pad_token_id=EOS,
        )
        expected = generated[0, prompt.shape[1] :].tolist()
        ended = completion.finish_reason == "eos"
        assert completion.tokens.tolist() + ended * [EOS] == expected
