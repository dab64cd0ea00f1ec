"""A described model as an ONNX graph from text to label and probabilities."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

from evergreen.core.errors import JobFailed
from evergreen.recipes.intent import words
from evergreen.recipes.intent.described import LEAST_VOTE, Described, Forest, Linear

_OPSET = [("", 17), ("ai.onnx.ml", 3), ("com.microsoft", 1)]
_IR = 9
#: A protobuf file must be smaller than 2 GiB; a tree node takes about 40 bytes of it.
_MOST_NODES = 40_000_000
#: Codes of characters: what separates words, any character that no name has, the first of those that names have.
_GAP, _OTHER, _FIRST = 1, 2, 3


def write(described: Described, path: Path) -> None:
    """Write the graph: `text` (n × 1 strings) in; `label` (n strings) and `probabilities` (n × answers) out.

    Characters become whole numbers by a table that also lower-cases, everything between words becomes one gap, and
    names are counted as sequences of characters between gaps. For text of words in lower case with one space between
    them (`words.plain`) the counts are exactly those of Python. Raw text is read alike, but for: İ, a capital sigma at
    the end of a word, and characters that Unicode has not assigned or keeps private, which pass for letters here.
    """
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph()
    counts = graph.counts(described.names, graph.characters(described.names))
    model = described.model
    scores = graph.linear(counts, described, model) if isinstance(model, Linear) else graph.forest(counts, described)
    if described.limit is not None:
        rows = graph.node("Shape", [scores], start=0, end=1)
        shape = graph.node("Concat", [rows, graph.integers([1])], axis=0)
        column = graph.node("Expand", [graph.constant([[described.limit]]), shape])
        scores = graph.node("Concat", [scores, column], axis=1)
    place = graph.node("ArgMax", [scores], axis=1, keepdims=0)
    graph.node("Gather", [graph.strings(described.answers), place], "label", axis=0)
    if isinstance(model, Forest):
        scores = graph.node("Log", [graph.node("Add", [scores, graph.constant([LEAST_VOTE])])])
    scaled = graph.node("Mul", [scores, graph.constant([1.0 / described.temperature])])
    graph.node("Cast", [graph.node("Softmax", [scaled], axis=1)], "probabilities", to=TensorProto.FLOAT)
    drawn = helper.make_graph(
        graph.nodes,
        "intent",
        [helper.make_tensor_value_info("text", TensorProto.STRING, [None, 1])],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, [None]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, len(described.answers)]),
        ],
        graph.constants,
    )
    whole = helper.make_model(drawn, opset_imports=[helper.make_opsetid(*o) for o in _OPSET], ir_version=_IR)
    said = {"evergreen.labels": json.dumps(described.answers, ensure_ascii=False)}
    if described.limit is not None:
        said["evergreen.outside"] = described.outside
    helper.set_model_props(whole, said)
    onnx.save(whole, path)


class _Graph:
    """Nodes and constants of a graph that is being drawn."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(
        self, operator: str, inputs: list[str], name: str | None = None, domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output and return the name of that."""
        return self.nodes_of(operator, inputs, [name or f"t{len(self.nodes)}"], domain, **attributes)[0]

    def nodes_of(
        self, operator: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs and return their names."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **attributes))
        return outputs

    def array(self, values: Any) -> str:
        """Add an array and return its name."""
        import numpy as np
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def constant(self, values: Any) -> str:
        """Add an array of 64-bit floats."""
        import numpy as np

        return self.array(np.asarray(values, dtype=np.float64))

    def integers(self, values: Any) -> str:
        """Add an array of whole numbers."""
        import numpy as np

        return self.array(np.asarray(values, dtype=np.int64))

    def strings(self, values: Any) -> str:
        """Add an array of strings."""
        import numpy as np

        return self.array(np.array(list(values), dtype=object))

    def characters(self, names: tuple[str, ...]) -> str:
        """Add what makes a text whole numbers: a gap, then the characters of words with one gap after each word."""
        one, ahead = self.integers(_GAP), self.integers([0, 1, 0, 1])
        code = _codes(names)
        apostrophe = self.integers(code["'"])
        table = _table(code)
        parted = self.node(
            "Tokenizer", ["text"], None, "com.microsoft", mark=0, mincharnum=1, pad_value="", separators=[""]
        )
        letters = self.node("Squeeze", [parted, self.integers([1])])
        raw = self.node(
            "LabelEncoder",
            [letters],
            None,
            "ai.onnx.ml",
            keys_strings=list(table),
            values_int64s=list(table.values()),
            default_int64=_OTHER,
        )
        framed = self.node("Pad", [raw, ahead, one])
        inside = self._letter(self._before(framed), one, apostrophe)
        inside = self.node("And", [inside, self._letter(self._after(framed), one, apostrophe)])
        stray = self.node("And", [self.node("Equal", [raw, apostrophe]), self.node("Not", [inside])])
        coded = self.node("Where", [stray, one, raw])
        # A gap stays where a letter comes before it. What stays moves to the front, in order.
        before = self._before(self.node("Pad", [coded, ahead, one]))
        kept = self.node("Or", [self.node("Greater", [coded, one]), self.node("Greater", [before, one])])
        length = self.node("Gather", [self.node("Shape", [coded]), self.integers(1)])
        position = self.node("Range", [self.integers(0), length, self.integers(1)])
        key = self.node("Where", [kept, position, self.node("Add", [position, length])])
        whole = self.node("Unsqueeze", [length, self.integers([0])])
        order = [f"key{len(self.nodes)}", f"order{len(self.nodes)}"]
        self.nodes_of("TopK", [key, whole], order, largest=0, sorted=1, axis=1)
        moved = self.node("GatherElements", [coded, order[1]], axis=1)
        packed = self.node("Where", [self.node("Less", [order[0], length]), moved, one])
        return self.node("Pad", [packed, ahead, one])

    def _letter(self, code: str, one: str, apostrophe: str) -> str:
        other = self.node("Not", [self.node("Equal", [code, apostrophe])])
        return self.node("And", [self.node("Greater", [code, one]), other])

    def _before(self, framed: str) -> str:
        return self.node("Slice", [framed, self.integers([0]), self.integers([-2]), self.integers([1])])

    def _after(self, framed: str) -> str:
        return self.node("Slice", [framed, self.integers([2]), self.integers([sys.maxsize]), self.integers([1])])

    def counts(self, names: tuple[str, ...], codes: str) -> str:
        """Add what counts names: each is a sequence of characters, of a word with the gaps around it."""
        code = _codes(names)
        by_length: dict[int, list[tuple[list[int], int]]] = {}
        for place, name in enumerate(names):
            text = name[len(words.RUN) :] if name.startswith(words.RUN) else f" {name} "
            by_length.setdefault(len(text), []).append(([code[c] for c in text], place))
        longest = max(by_length)
        pool: list[int] = []
        starts: list[int] = []
        places: list[int] = []
        for length in range(1, longest + 1):
            starts.append(len(pool))
            for sequence, place in by_length.get(length, []):
                pool += sequence
                places.append(place)
        return self.node(
            "TfIdfVectorizer",
            [codes],
            mode="TF",
            min_gram_length=1,
            max_gram_length=longest,
            max_skip_count=0,
            ngram_counts=starts,
            ngram_indexes=places,
            pool_int64s=pool,
        )

    def linear(self, counts: str, described: Described, model: Linear) -> str:
        """Add the scores of a linear model. Only rows of the weights that a text has names of are touched."""
        from onnx import TensorProto

        largest = self.node("ReduceMax", [counts], axes=[0], keepdims=0)
        used = self.node("Squeeze", [self.node("NonZero", [largest]), self.integers([0])])
        features = self._features(
            self.node("Gather", [counts, used], axis=1), self.node("Gather", [self.array(described.idf), used])
        )
        levels = self.node("Gather", [self.array(model.levels), used], axis=0)
        weights = self.node("Mul", [self.node("Cast", [levels], to=TensorProto.DOUBLE), self.constant(model.steps)])
        return self.node("Add", [self.node("MatMul", [features, weights]), self.constant(model.intercepts)])

    def _features(self, counts: str, factors: str) -> str:
        from onnx import TensorProto

        wide = [self.node("Cast", [name], to=TensorProto.DOUBLE) for name in (counts, factors)]
        scaled = self.node("Mul", wide)
        squares = self.node("ReduceSum", [self.node("Mul", [scaled, scaled]), self.integers([1])], keepdims=1)
        some = self.node("Greater", [squares, self.constant(0.0)])
        norm = self.node("Sqrt", [self.node("Where", [some, squares, self.constant(1.0)])])
        return self.node("Div", [scaled, norm])

    def forest(self, counts: str, described: Described) -> str:
        """Add the votes of trees."""
        import numpy as np
        from onnx import TensorProto

        assert isinstance(described.model, Forest)
        trees = described.model.trees
        if sum(len(tree.left) for tree in trees) > _MOST_NODES:
            raise JobFailed(
                "the trees are too large for an ONNX file",
                kind="configuration",
                hint="Set fewer trees, or dataset.max_train, or model = linear.",
            )
        features = self._features(counts, self.array(described.idf))
        x = self.node("Cast", [features], to=TensorProto.FLOAT)
        built: dict[str, Any] = {f"nodes_{k}": [] for k in ("treeids", "nodeids", "featureids", "modes", "values")}
        built |= {"nodes_truenodeids": [], "nodes_falsenodeids": []}
        built |= {f"target_{k}": [] for k in ("treeids", "nodeids", "ids", "weights")}
        for number, tree in enumerate(trees):
            n, leaf = len(tree.left), tree.left < 0
            built["nodes_treeids"] += [number] * n
            built["nodes_nodeids"] += range(n)
            built["nodes_featureids"] += np.where(leaf, 0, tree.feature).tolist()
            built["nodes_modes"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
            built["nodes_values"] += np.where(leaf, 0.0, tree.threshold).tolist()
            built["nodes_truenodeids"] += np.where(leaf, 0, tree.left).tolist()
            built["nodes_falsenodeids"] += np.where(leaf, 0, tree.right).tolist()
            at, target = np.nonzero((tree.votes != 0) & leaf[:, None])
            built["target_treeids"] += [number] * len(at)
            built["target_nodeids"] += at.tolist()
            built["target_ids"] += target.tolist()
            built["target_weights"] += tree.votes[at, target].tolist()
        built |= {"n_targets": len(described.labels), "aggregate_function": "SUM"}
        votes = self.node("TreeEnsembleRegressor", [x], None, "ai.onnx.ml", **built)
        exact = self.node("Cast", [votes], to=TensorProto.DOUBLE)
        return self.node("Div", [exact, self.constant(float(len(trees)))])


def _codes(names: tuple[str, ...]) -> dict[str, int]:
    """Return a whole number for each character that names are written with, a gap for the space."""
    used = {c for name in names for c in name.removeprefix(words.RUN)} - {" "}
    return {" ": _GAP, **{c: _FIRST + i for i, c in enumerate(sorted(used | {"'"}))}}


def _table(code: dict[str, int]) -> dict[str, int]:
    """Return the code of every character that is not just any letter: those in use, in both cases, and what is no letter."""
    table = {"": _GAP}
    for point in range(sys.maxunicode + 1):
        c = chr(point)
        if c.isalnum() or c == "'":
            found = code.get(c.lower())
            if found is not None:
                table[c] = found
        elif unicodedata.category(c) not in ("Cs", "Co", "Cn"):
            table[c] = _GAP
    return table
