"""Tasks of the lm-evaluation-harness, defined by local files."""

import json
import shutil

import pytest

from icbs.errors import DataError, SettingError
from icbs.evaluation.harness import evaluate_tasks
from icbs.models.loading import load_model
from tests.icbs_fixtures import tiny_loaded


def test_without_the_extra_it_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr("icbs.evaluation.harness.importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'icbs-bench\[lm-eval\]'"):
        evaluate_tasks(tiny_loaded(), [tmp_path / "task.yaml"])


@pytest.fixture
def task(tmp_path):
    """Which of two words comes next; each of them is the right one in three of six rows."""
    rows = [
        {"text": "the model of", "choices": ["weights", "masks"], "label": n % 2} for n in range(6)
    ]
    data = tmp_path / "rows.json"
    data.write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "next_word.yaml"
    path.write_text(
        "task: next_word\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {tmp_path / 'cache'}}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        'doc_to_text: "{{text}}"\n'
        "doc_to_choice: choices\n"
        "doc_to_target: label\n"
        "metric_list: [{metric: acc}]\n"
    )
    return path


@pytest.mark.filterwarnings("default")
def test_task_of_local_files(icbs, model_folder, task, tmp_path):
    pytest.importorskip("lm_eval")
    with pytest.raises(SettingError, match="bos or eos token"):
        evaluate_tasks(load_model(str(model_folder)), [task])
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    loaded = load_model(str(folder))
    loaded.tokenizer.eos_token = loaded.tokenizer.pad_token
    loaded.tokenizer.save_pretrained(folder)
    found = evaluate_tasks(loaded, [task])
    # the same question six times
    assert found["next_word"]["acc,none"] == 0.5
    status, out, err = icbs("evaluate", folder, "--tasks", task, "--json")
    assert status == 0, err
    assert json.loads(out)["tasks"]["next_word"]["acc,none"] == 0.5
    with pytest.raises(DataError, match="is no file"):
        evaluate_tasks(loaded, [task.with_name("nothing.yaml")])
    task.write_text("task: [")
    with pytest.raises(DataError, match="cannot be run"):
        evaluate_tasks(loaded, [task])
