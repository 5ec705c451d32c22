"""Tests of tools/: python3 tools/test_tools.py"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from types import ModuleType
from unittest import mock

from needs import need

need("numpy", "torch", "safetensors")
import numpy as np
import torch
from torch import nn

import convert_gdss
import convert_mdlm_cnn
import landscape
import train_value
from kac_io import Cnn1d, ConvGru, ConvRegressor, encode, load, load_module, one_hot, save, subs
from promoter_data import single_linkage
from train_promoter_denoiser import discrete_bound, markov_nll

try:
    import molecule_report
except SystemExit:  # without RDKit
    molecule_report = None


class Files(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_data_start_on_64_bytes(self) -> None:
        path = self.folder / "a.safetensors"
        save(path, {"odd": torch.arange(5, dtype=torch.uint8), "x": torch.randn(3, 4)}, {"kac.card": 'a "quoted" one'})
        header = int.from_bytes(path.read_bytes()[:8], "little")
        self.assertEqual((8 + header) % 64, 0)
        tensors, meta = load(path)
        self.assertEqual(tensors["odd"].tolist(), [0, 1, 2, 3, 4])
        self.assertEqual(meta, {"kac.card": 'a "quoted" one'})

    def test_every_architecture_comes_back(self) -> None:
        x = torch.rand(2, 30, 4).softmax(-1)
        gru = ConvGru(4, 8, 2, norm=True, residual=True).eval()
        text = "conv,pad=same,act=gelu;maxpool,size=4;flatten;dense"
        stack = ConvRegressor(text, "ACGT", 26, [5, 1], [4], suffix="ATGG")
        for net, meta, rows in ((gru, gru.metadata("ACGT"), x), (stack, stack.metadata(), x[:, :26])):
            path = self.folder / "net.safetensors"
            save(path, net.tensors(), meta)
            again, _ = load_module(path)
            torch.testing.assert_close(again(rows), net(rows), rtol=0, atol=0)

    def test_batchnorm_folds(self) -> None:
        torch.manual_seed(0)
        text = "conv,pad=same,act=elu;avgpool,size=3;conv,pad=valid,dilation=2,act=tanh;flatten;dense,act=relu;dense"
        net = ConvRegressor(text, "ACGT", 20, [6, 5, 4, 1], [3, 2], batchnorm=True)
        net(torch.rand(64, 20, 4))
        net.eval()
        x = torch.rand(3, 20, 4)
        before = net(x)
        net.fold()
        torch.testing.assert_close(net(x), before, rtol=1e-5, atol=1e-5)


class Config(dict):
    """Stands for the training config that published checkpoints hold: building it again is an error."""

    def __reduce__(self) -> tuple:
        return (must_not_run, ("config",), {"state": 1}, iter([1]), iter([(1, 2)]))


def must_not_run(text: str) -> None:
    raise AssertionError(f"the checkpoint ran {text}")


class Converter(Files):
    def checkpoint(self) -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        net = Cnn1d(4, 16, 9, [1, 1, 4, 16, 64], embedder=True)
        return {f"backbone.{name}": value for name, value in net.state_dict().items()}

    def run_main(self, *arguments: str) -> None:
        with mock.patch("sys.argv", ["convert_mdlm_cnn.py", *arguments]), contextlib.redirect_stdout(io.StringIO()):
            convert_mdlm_cnn.main()

    def test_checkpoint_and_safetensors(self) -> None:
        state = self.checkpoint()
        checkpoint = {"state_dict": state, "ema": {"decay": 0.9999}, "hyper_parameters": {"config": Config()}}
        torch.save(checkpoint, self.folder / "a.ckpt")
        save(self.folder / "a.safetensors", state, {})
        for source in ("a.ckpt", "a.safetensors"):
            target = self.folder / "out.safetensors"
            self.run_main(str(self.folder / source), str(target), "--length", "50")
            net, meta = load_module(target)
            self.assertEqual(meta["kac.dilations"], "1,1,4,16,64")
            self.assertEqual(meta["kac.length"], "50")
            for name, value in net.state_dict().items():
                torch.testing.assert_close(value, state[f"backbone.{name}"], rtol=0, atol=0)

    def test_errors_are_one_sentence(self) -> None:
        state = self.checkpoint()
        del state["backbone.norms.3.bias"]
        save(self.folder / "a.safetensors", state, {})
        error = io.StringIO()
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(error):
            self.run_main(str(self.folder / "a.safetensors"), str(self.folder / "out.safetensors"))
        self.assertEqual(caught.exception.code, 2)
        self.assertIn("norms.3.bias", error.getvalue())
        self.assertFalse((self.folder / "out.safetensors").exists())

    def test_what_is_not_a_checkpoint_is_refused(self) -> None:
        (self.folder / "a.ckpt").write_text("hello")
        error = io.StringIO()
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(error):
            self.run_main(str(self.folder / "a.ckpt"), str(self.folder / "out.safetensors"))
        self.assertEqual(caught.exception.code, 2)
        self.assertIn("neither", error.getvalue())


class Graphs(Files):
    """A checkpoint of GDSS is pickled with the class EasyDict, which need not be installed to read it."""

    def checkpoint(self) -> dict:
        easydict = ModuleType("easydict")
        exec("class EasyDict(dict):\n    pass", easydict.__dict__)
        easydict.EasyDict.__module__ = "easydict"
        with mock.patch.dict(sys.modules, {"easydict": easydict}):
            sde = {part: easydict.EasyDict(type="VE", beta_min=0.1, beta_max=1.0, num_scales=1000) for part in "xa"}
            config = easydict.EasyDict(data={"max_node_num": 9, "max_feat_num": 4, "data": "QM9"})
            config["sde"] = {"x": sde["x"], "adj": sde["a"]}
            config.attribute = "as EasyDict has them"
            torch.manual_seed(2)
            checkpoint = {
                "model_config": config,
                "params_x": {"model_type": "ScoreNetworkX", "depth": 1},
                "params_adj": {"model_type": "ScoreNetworkA", "num_heads": 4, "conv": "GCN", "c_init": 2},
                "x_state_dict": {"layers.0.weight": torch.randn(4, 16), "layers.0.bias": torch.randn(16)},
                "adj_state_dict": {"module.final.linears.0.bias": torch.randn(3).double()},
            }
            torch.save(checkpoint, self.folder / "a.pth")
        return checkpoint

    def run_main(self, *options: str) -> tuple[int, str]:
        error = io.StringIO()
        arguments = ["convert_gdss.py", str(self.folder / "a.pth"), str(self.folder / "a.safetensors"), *options]
        with (
            mock.patch("sys.argv", arguments),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(error),
        ):
            try:
                return convert_gdss.main(), error.getvalue()
            except SystemExit as exit_:
                return int(exit_.code or 0), error.getvalue()

    def test_tensors_and_what_is_said_of_them(self) -> None:
        checkpoint = self.checkpoint()
        self.assertEqual(self.run_main(), (0, ""))
        tensors, meta = load(self.folder / "a.safetensors")
        self.assertEqual(set(tensors), {"x.layers.0.weight", "x.layers.0.bias", "adj.final.linears.0.bias"})
        torch.testing.assert_close(
            tensors["x.layers.0.weight"], checkpoint["x_state_dict"]["layers.0.weight"], rtol=0, atol=0
        )
        self.assertEqual(tensors["adj.final.linears.0.bias"].dtype, torch.float32)
        self.assertEqual((meta["kac.arch"], meta["max_node_num"], meta["max_feat_num"]), ("gdss", "9", "4"))
        self.assertEqual(json.loads(meta["sde_adj"])["beta_max"], 1.0)
        self.assertEqual(json.loads(meta["params_adj"])["num_heads"], 4)
        self.assertEqual(meta["kac.atoms"], "C,N,O,F")
        self.assertNotIn("kac.node_counts", meta)

    def test_counts_and_atoms(self) -> None:
        self.checkpoint()
        counts = self.folder / "counts.json"
        counts.write_text('{"9": 83366, "10": 1, "2": 0.5}')
        code, error = self.run_main("--node-counts", str(counts))
        self.assertEqual(code, 2)
        self.assertIn("numbers of nodes are 1 to 9", error)
        counts.write_text('{"9": 83366, "2": 0.5}')
        self.assertEqual(self.run_main("--node-counts", str(counts), "--atoms", "C,N,O,Cl"), (0, ""))
        meta = load(self.folder / "a.safetensors")[1]
        self.assertEqual((meta["kac.node_counts"], meta["kac.atoms"]), ("2:0.5,9:83366", "C,N,O,Cl"))
        code, error = self.run_main("--atoms", "C,N")
        self.assertEqual(code, 2)
        self.assertIn("is not 4 elements", error)

    def test_another_checkpoint_is_refused(self) -> None:
        torch.save({"x_state_dict": {}}, self.folder / "a.pth")
        code, error = self.run_main()
        self.assertEqual(code, 2)
        self.assertIn("model_config, params_x, params_adj, adj_state_dict is missing", error)
        checkpoint = self.checkpoint() | {"model_config": {}, "params_x": {"model_type": "ScoreNetworkX"}}
        torch.save(checkpoint, self.folder / "a.pth")
        self.assertIn("'sde' is missing", self.run_main()[1])
        torch.save(checkpoint | {"params_x": {"model_type": "Other"}}, self.folder / "a.pth")
        self.assertIn("the network is Other", self.run_main()[1])


class Values(Files):
    def record(self, name: str = "a", algorithm: str = "pretrained", n: int = 400) -> Path:
        """Paths of 8 sites that are revealed from left to right; r counts the letter 1."""
        rng = np.random.default_rng(len(name))
        x0 = rng.integers(0, 4, (n, 8)).astype(np.uint8)
        x = np.full((n, 5, 8), 4, np.uint8)
        for k in range(5):
            x[:, k, : 2 * k] = x0[:, : 2 * k]
        reward = (x0 == 1).sum(1).astype(np.float64)
        meta = {"kac.record": "trajectories", "kac.alphabet": "ACGT", "kac.model": "m", "kac.algorithm": algorithm}
        tensors = {"x": x, "level": np.arange(4, -1, -1, dtype=np.int32), "reward": reward}
        tensors["group"] = np.arange(n, dtype=np.int32)
        save(self.folder / f"{name}.safetensors", tensors, meta | {"kac.reward": "1*r"})
        return self.folder / f"{name}.safetensors"

    def train(self, *arguments: str) -> tuple[int, str, str]:
        out, error = io.StringIO(), io.StringIO()
        target = str(self.folder / "v.safetensors")
        options = ["--out", target, "--channels", "16", "--batch", "64", "--lr", "0.01"]
        with (
            mock.patch("sys.argv", ["train_value.py", *arguments, *options]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(error),
        ):
            code = train_value.main()
        return code, out.getvalue(), error.getvalue()

    def value_of(self, text: str) -> float:
        net, _ = load_module(self.folder / "v.safetensors")
        tokens = np.array([["ACGT-".index(c) for c in text]], np.uint8)
        return float(train_value.predict(net, tokens, 4)[0])

    def test_mean_value_is_an_expectation(self) -> None:
        code, out, _ = self.train(str(self.record()), str(self.record("bb")), "--steps", "300")
        self.assertEqual(code, 0)
        self.assertIn("| level | masked | r of value | RMSE |", out)
        for text, mean in (("--------", 2), ("CCAG----", 3), ("AGAG----", 1), ("CCAGCTCA", 4)):
            self.assertAlmostEqual(self.value_of(text), mean, delta=0.5)
        _, meta = load(self.folder / "v.safetensors")
        self.assertEqual(meta["kac.value.kind"], "mean")
        self.assertEqual((meta["kac.value.model"], meta["kac.value.reward"]), ("m", "1*r"))
        self.assertNotIn("kac.value.alpha", meta)

    def test_soft_value_is_a_log_mean_of_exponentials(self) -> None:
        code, out, _ = self.train(str(self.record(n=2000)), "--kind", "soft", "--alpha", "0.7", "--steps", "500")
        self.assertEqual(code, 0)
        self.assertIn("mean exp z", out)
        one = 0.7 * np.log((np.exp(1 / 0.7) + 3) / 4)  # what a masked site is worth: 0.41, its mean 0.25
        for text, value in (("--------", 8 * one), ("CCAG----", 2 + 4 * one), ("AGAG----", 4 * one)):
            self.assertAlmostEqual(self.value_of(text), value, delta=0.5)

    def test_soft_loss_is_least_at_the_soft_value(self) -> None:
        reward = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
        soft = 0.8 * torch.logsumexp(reward / 0.8, 0) - 0.8 * np.log(3)
        guess = soft.clone().requires_grad_()
        train_value.value_loss(guess.expand(3), reward, "soft", 0.8).backward()
        self.assertAlmostEqual(float(guess.grad), 0, places=12)
        far = torch.tensor(-1e6, requires_grad=True)
        loss = train_value.value_loss(far.expand(3), reward.float(), "soft", 0.8)
        loss.backward()
        self.assertTrue(torch.isfinite(loss) and torch.isfinite(far.grad))

    def test_a_convgru_learns_in_units_of_r(self) -> None:
        code, _, _ = self.train(str(self.record()), "--arch", "convgru", "--steps", "150")
        self.assertEqual(code, 0)
        self.assertAlmostEqual(self.value_of("--------"), 2, delta=0.6)
        self.assertGreater(self.value_of("CCCCCC--"), 4)

    def graphs(self, n: int = 400) -> Path:
        """Graphs of 1 to 4 nodes whose noise falls; r sums a feature of the nodes at the end."""
        rng = np.random.default_rng(3)
        count = rng.integers(1, 5, n)
        live = np.arange(4) < count[:, None]
        x0 = rng.integers(0, 2, (n, 4)) * live
        x = np.zeros((n, 5, 1 + 4 + 6), np.float32)
        x[..., 0] = count[:, None]
        for k in range(5):
            x[:, k, 1:5] = (x0 + rng.standard_normal((n, 4)) * (0.4 - k / 10)) * live
        meta = {"kac.record": "trajectories", "kac.alphabet": "", "kac.model": "m", "kac.algorithm": "pretrained"}
        tensors = {"x": x, "level": np.arange(4, -1, -1, dtype=np.int32), "reward": x0.sum(1).astype(np.float64)}
        tensors["group"] = np.arange(n, dtype=np.int32)
        sizes = {"kac.reward": "1*r", "kac.nodes": "4", "kac.features": "1"}
        save(self.folder / "graphs.safetensors", tensors, meta | sizes)
        return self.folder / "graphs.safetensors"

    def test_a_gin_learns_from_graphs(self) -> None:
        record = str(self.graphs())
        code, _, _ = self.train(record, "--arch", "gin", "--steps", "400")
        self.assertEqual(code, 0)
        net, meta = load_module(self.folder / "v.safetensors")
        self.assertEqual((meta["kac.arch"], meta["kac.edges"], meta["kac.nodes"]), ("gin", "complete", "4"))
        rows = np.zeros((3, 11), np.float32)
        rows[:, :5] = [[4, 1, 1, 1, 1], [4, 0, 0, 1, 0], [2, 1, 1, 9, 9]]  # what is dead is not looked at
        for guess, truth in zip(train_value.predict(net, rows, 0), (4, 1, 2), strict=True):
            self.assertAlmostEqual(float(guess), truth, delta=0.6)
        code, _, error = self.train(record, "--steps", "5")
        self.assertEqual(code, 2)
        self.assertIn("gin is for graphs", error)

    def test_the_same_seed_gives_the_same_file(self) -> None:
        first = second = b""
        record = str(self.record())
        for _ in range(2):
            self.train(record, "--steps", "20", "--threads", "1")
            tensors, _ = load(self.folder / "v.safetensors")
            first, second = second, b"".join(t.numpy().tobytes() for t in tensors.values())
        self.assertEqual(first, second)

    def test_whole_groups_are_held_out(self) -> None:
        record = train_value.read_records([self.record()], False)
        record.group = np.arange(400) // 8
        train, held = train_value.hold_out(record, 0.2, 1)
        self.assertEqual(len(held), 80)
        self.assertFalse(set(record.group[train]) & set(record.group[held]))
        self.assertEqual(sorted([*train, *held]), list(range(400)))

    def test_records_that_do_not_fit(self) -> None:
        code, _, error = self.train(str(self.record("s", "svdd_pm")), "--steps", "5")
        self.assertEqual(code, 2)
        self.assertIn("steered by svdd_pm", error)
        code, _, _ = self.train(str(self.record("s", "svdd_pm")), "--steps", "5", "--steered")
        self.assertEqual(code, 0)
        save(self.folder / "other.safetensors", {"x": torch.zeros(2)}, {})
        code, _, error = self.train(str(self.folder / "other.safetensors"))
        self.assertEqual(code, 2)
        self.assertIn("not a record", error)


class Landscapes(Files):
    def write(self, text: str) -> Path:
        path = self.folder / "table.tsv.gz"
        path.write_bytes(gzip.compress(text.encode()))
        return path

    def test_missing_variants_are_minus_infinity(self) -> None:
        path = self.write("variant\thd\tfitness\nVDGV\t0\t1.0\nAAAC\t4\t0.25\n")
        values = landscape.read(landscape.LANDSCAPES["gb1"], path)
        self.assertEqual(np.isfinite(values).sum(), 2)
        self.assertEqual(values[0, 0, 0, 1], np.float32(0.25))
        self.assertEqual(values.reshape(-1)[1], np.float32(0.25))  # the last site is the fastest

    def test_the_start_codon_is_left_out(self) -> None:
        path = self.write("sequence\tefficiency\nAAAAAAAUGAC\t76\n")
        values = landscape.read(landscape.LANDSCAPES["tis"], path)
        self.assertEqual(values[0, 0, 0, 0, 0, 0, 0, 1], 76)

    def test_the_chain_is_that_of_the_best_tenth(self) -> None:
        values = np.arange(64, dtype=np.float32).reshape(4, 4, 4)  # the best: (3, 2, 0) to (3, 3, 2)
        values[3, 3, 3] = -np.inf
        initial, transition = landscape.fit(values)
        np.testing.assert_allclose(initial, [0.025, 0.025, 0.025, 0.925], rtol=1e-6)
        best = [(3, 2, 0), (3, 2, 1), (3, 2, 2), (3, 2, 3), (3, 3, 0), (3, 3, 1), (3, 3, 2)]
        pair = np.full((4, 4), 0.1 / 16)
        for a, b, c in best:
            pair[a, b] += 0.9 / 14
            pair[b, c] += 0.9 / 14
        np.testing.assert_allclose(transition, pair / pair.sum(1, keepdims=True), rtol=1e-6)

    def test_another_table_is_refused(self) -> None:
        path = self.write("variant\thd\tfitness\nVDGV\t0\t1.0\nVD\t0\t1.0\n")
        with self.assertRaisesRegex(ValueError, "line 3 is not of this table"):
            landscape.read(landscape.LANDSCAPES["gb1"], path)
        with self.assertRaisesRegex(ValueError, "line 2 is not of this table"):
            landscape.read(landscape.LANDSCAPES["tis"], path)


@unittest.skipIf(molecule_report is None, "RDKit is not here")
class Molecules(Files):
    def graph(self, atoms: str, *bonds: tuple[int, int, int]) -> list[float]:
        """A row of numbers of a graph of at most 7 nodes, of the elements C, N and O."""
        features = [float(atom == element) for atom in atoms.ljust(7) for element in "CNO"]
        orders = {(i, j): order for i, j, order in bonds}
        pairs = [float(orders.get((i, j), 0)) for i in range(7) for j in range(i + 1, 7)]
        return [float(len(atoms)), *features, *pairs]

    def describe(self, atoms: str, *bonds: tuple[int, int, int]) -> dict[str, object]:
        molecule = molecule_report.build(self.graph(atoms, *bonds), 7, "CNO")
        return molecule_report.describe(molecule, molecule_report.load_sascorer())

    def test_a_molecule_as_it_is(self) -> None:
        found = self.describe("CCO", (0, 1, 1), (1, 2, 1))
        self.assertEqual((found["valid"], found["pieces"], found["smiles"]), (True, 1, "CCO"))
        self.assertAlmostEqual(found["qed"], 0.4068, places=3)

    def test_a_charge_makes_it_valid(self) -> None:
        found = self.describe("NCCCC", (0, 1, 1), (0, 2, 1), (0, 3, 1), (0, 4, 1))
        self.assertEqual((found["valid"], found["smiles"]), (True, "C[N+](C)(C)C"))

    def test_the_highest_bond_loses_an_order(self) -> None:
        found = self.describe("CCCC", (0, 1, 2), (0, 2, 2), (0, 3, 1))  # 5 bonds of the first carbon
        self.assertEqual((found["valid"], found["smiles"]), (False, "C=C(C)C"))

    def test_the_longest_piece_is_kept(self) -> None:
        found = self.describe("CCNO", (0, 1, 1), (1, 2, 1))
        self.assertEqual((found["valid"], found["pieces"], found["smiles"]), (True, 2, "CCN"))

    def test_runs_of_both_forms(self) -> None:
        (self.folder / "samples.csv").write_text("id,object\n0,C=C(=C)C.O\n1,CCO\n")
        smiles = molecule_report.read_run(self.folder, None)
        self.assertEqual([x["smiles"] for x in smiles], ["C=C(C)C", "CCO"])
        self.assertEqual([x["valid"] for x in smiles], [False, True])
        rows = [self.graph("CCCCO", (0, 1, 2), (0, 2, 2), (0, 3, 1)), self.graph("CCO", (0, 1, 1), (1, 2, 1))]
        lines = ["id,object", *(f"{i},{' '.join(map(str, row))}" for i, row in enumerate(rows))]
        (self.folder / "samples.csv").write_text("\n".join(lines) + "\n")
        self.assertEqual(molecule_report.read_run(self.folder, ["C", "N", "O"]), smiles)
        with self.assertRaisesRegex(ValueError, "no graphs of 2 features"):
            molecule_report.read_run(self.folder, ["C", "N"])

    def test_probabilities(self) -> None:
        self.assertAlmostEqual(molecule_report.fisher(1, 10, 9, 10), 0.0010934, places=6)
        self.assertAlmostEqual(molecule_report.fisher(5, 10, 10, 20), 1.0, places=6)
        same, p = molecule_report.smirnov(range(100), range(100))
        self.assertEqual((same, p), (0.0, 1.0))
        distance, p = molecule_report.smirnov(range(100), range(50, 150))
        self.assertAlmostEqual(distance, 0.5)
        self.assertLess(p, 1e-9)
        distance, p = molecule_report.smirnov(range(100), [x + 15 for x in range(100)])
        self.assertTrue(0.15 < p < 0.25, p)  # 0.21 exactly


class Numbers(unittest.TestCase):
    def test_encode_names_the_letter(self) -> None:
        with self.assertRaisesRegex(ValueError, "sequence 1: 'N' at position 2"):
            encode(["ACGT", "ACNT"], "ACGT")

    def test_subs_keeps_what_is_revealed(self) -> None:
        tokens = torch.tensor([[2, 4]])
        log_p = subs(torch.randn(1, 2, 5), tokens)
        self.assertEqual(log_p[0, 0].tolist(), [-1e6, -1e6, 0.0, -1e6])
        self.assertAlmostEqual(float(log_p[0, 1].exp().sum()), 1.0, places=6)

    def test_bound_of_a_net_that_knows_nothing_is_ln_4(self) -> None:
        class Flat(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.zeros_like(x)

        x0 = torch.zeros(200, 80, dtype=torch.long)
        for every in (1, 8):
            bound = discrete_bound(Flat(), x0, 64, seed=0, every=every)
            self.assertLess(abs(bound.mean() - np.log(4)), 5 * bound.std() / len(bound) ** 0.5)

    def test_markov_finds_its_own_order(self) -> None:
        tokens = (np.arange(80) + np.random.default_rng(0).integers(0, 4, (500, 1))) % 4
        weight = np.full(500, 1 / 500)
        self.assertLess(markov_nll(tokens, weight, tokens, 1).mean(), 0.03)
        self.assertGreater(markov_nll(tokens, weight, tokens, 0).mean(), 1.3)

    def test_single_linkage(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.integers(0, 4, (2, 80))
        near, window = a.copy(), np.roll(b, 5)
        near[::4] = (near[::4] + 1) % 4
        tokens = np.stack([a, b, near, window]).astype(np.uint8)
        sequences = ["".join("ACGT"[t] for t in row) for row in tokens]
        self.assertEqual(single_linkage(sequences, tokens).tolist(), [0, 1, 0, 1])

    def test_tokens_beyond_the_alphabet_are_zero_rows(self) -> None:
        self.assertEqual(one_hot(torch.tensor([[9, 1]]), 2).tolist(), [[[0.0, 0.0], [0.0, 1.0]]])


if __name__ == "__main__":
    unittest.main()
