"""What an ONNX model from a stranger may hold: operators, versions, tensors, shapes. Everything else is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from evergreen.core.errors import InvalidInput

_GENERAL = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu Clip
Compress Concat Constant ConstantOfShape Conv Cos Cosh CumSum DepthToSpace Div Dropout Einsum Elu Equal Erf Exp Expand
Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization
LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish Mod Mul Neg
NonZero Not OneHot Or PRelu Pad Pow RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare RegexFullMatch Relu Reshape Resize Round ScatterElements
ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze
StringConcat StringNormalizer StringSplit Sub Sum Tan Tanh TfIdfVectorizer ThresholdedRelu Tile TopK Transpose Trilu
Unsqueeze Upsample Where Xor
"""
_LEARNT = """
ArrayFeatureExtractor Binarizer CategoryMapper FeatureVectorizer Imputer LabelEncoder LinearClassifier LinearRegressor
Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsembleClassifier TreeEnsembleRegressor ZipMap
"""
#: domain -> (oldest version, newest version, operators)
OPERATORS: dict[str, tuple[int, int, frozenset[str]]] = {
    "": (7, 24, frozenset(_GENERAL.split())),
    "ai.onnx.ml": (1, 5, frozenset(_LEARNT.split())),
    "com.microsoft": (1, 1, frozenset(["MurmurHash3", "Tokenizer"])),
}
#: Operators that make something large of a shape: operator -> which inputs say how large. They must be constants.
SHAPED = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Resize": (2, 3),
    "Tile": (1,),
    "Upsample": (1,),
}
_MAX_NODES, _MAX_ELEMENTS, _MAX_METADATA = 2000, 16_000_000, 2_000_000
_NEWEST_IR = 13
_ITEM = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.INT64: 8,
    TensorProto.INT32: 4,
    TensorProto.UINT8: 1,
    TensorProto.INT8: 1,
    TensorProto.BOOL: 1,
    TensorProto.FLOAT16: 2,
    TensorProto.STRING: 0,
}
_FLOW = (AttributeProto.GRAPH, AttributeProto.GRAPHS)
_SPARSE = (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS)


def check(model: Any, data: bytes) -> None:
    """Raise `InvalidInput` that says what is not allowed in a model (`data` are its bytes), or cannot be right."""
    graph = model.graph
    if not 3 <= model.ir_version <= _NEWEST_IR:
        raise InvalidInput(f"the file is no ONNX model: its format version is {model.ir_version}")
    if len(model.functions) or len(model.training_info):
        raise InvalidInput("the model defines functions or a training of its own, which are not allowed")
    if len(graph.sparse_initializer) or len(graph.quantization_annotation):
        raise InvalidInput("the model has sparse or quantised tensors, which are not allowed")
    if sum(len(p.key) + len(p.value) for p in model.metadata_props) > _MAX_METADATA:
        raise InvalidInput(f"the model has more than {_MAX_METADATA} characters of metadata")
    versions = _versions(model)
    if not 0 < len(graph.node) <= _MAX_NODES:
        raise InvalidInput(f"the model has {len(graph.node)} operators; 1 to {_MAX_NODES} are allowed")
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if len(constants) != len(graph.initializer):
        raise InvalidInput("two tensors of the model have the same name")
    for tensor in graph.initializer:
        _tensor(tensor)
    for node in graph.node:
        _node(node, versions)
    valid(data)
    constants |= dict(_made(graph))
    for node in graph.node:
        _shape(node, constants)
        _places(node)


def _versions(model: Any) -> set[str]:
    """Check which collections of operators a model uses, and in which versions."""
    found = set()
    for used in model.opset_import:
        domain = "" if used.domain == "ai.onnx" else used.domain
        if domain not in OPERATORS:
            if any(node.domain == used.domain for node in model.graph.node):
                raise InvalidInput(f"the model uses operators of {used.domain!r}, which are not allowed")
            continue
        oldest, newest, _ = OPERATORS[domain]
        if not oldest <= used.version <= newest:
            name = domain or "ai.onnx"
            raise InvalidInput(f"version {used.version} of {name} is not from {oldest} to {newest}")
        found.add(domain)
    return found


def valid(model: Any) -> None:
    """Have ONNX check the form of a model, or of its bytes: names, kinds of attributes. Raises `InvalidInput`."""
    try:
        onnx.checker.check_model(model)
    except Exception as e:
        raise InvalidInput(f"the model is not valid: {e}") from e


def _places(node: Any) -> None:
    """Check numbers by which an operator finds its way in memory."""
    where = f"{node.op_type} ({node.name or 'no name'})"
    if node.op_type.startswith("TreeEnsemble"):
        trees(node, where)
    if node.op_type == "TfIdfVectorizer":
        indexes = whole(node, "ngram_indexes")
        if not len(indexes) or indexes.min() < 0 or indexes.max() >= 1_000_000:
            raise InvalidInput(f"{where}: ngram_indexes are not from 0 to 999999")


def _node(node: Any, versions: set[str]) -> None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    where = f"{node.op_type} ({node.name or 'no name'})"
    known = OPERATORS.get(domain)
    if known is None or node.op_type not in known[2]:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise InvalidInput(f"the operator {name} is not allowed")
    if domain not in versions:
        raise InvalidInput(f"{where}: the model does not say which version of {domain or 'ai.onnx'} it uses")
    if len(node.input) > 1000 or len(node.output) > 1000:
        raise InvalidInput(f"{where} has more than 1000 inputs or outputs")
    for attribute in node.attribute:
        if attribute.type in _FLOW or attribute.HasField("g") or len(attribute.graphs):
            raise InvalidInput(f"{where}: loops and branches are not allowed")
        if attribute.type in _SPARSE or attribute.ref_attr_name:
            raise InvalidInput(f"{where}: the attribute {attribute.name} is of a kind that is not allowed")
        for tensor in [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]:
            _tensor(tensor)


def held(node: Any, name: str) -> Any:
    """Return an attribute of a node, nothing (an empty tuple) if it has none of that name."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), ())


def whole(node: Any, name: str) -> Any:
    """Return the whole numbers of an attribute as an array; a forest has millions."""
    return next(
        (np.fromiter(a.ints, dtype=np.int64, count=len(a.ints)) for a in node.attribute if a.name == name),
        np.empty(0, dtype=np.int64),
    )


def _tensor(tensor: Any) -> None:
    """Check that a tensor's data lies in the file and is as much as its shape says."""
    where = f"tensor {tensor.name[:80] or 'without a name'}"
    if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data):
        raise InvalidInput(f"{where}: its data lies in another file, which is not allowed")
    if tensor.data_type not in _ITEM or tensor.HasField("segment"):
        raise InvalidInput(f"{where}: its kind of data is not allowed")
    if len(tensor.dims) > 8 or any(d < 0 for d in tensor.dims):
        raise InvalidInput(f"{where}: its shape is not a shape")
    said = math.prod(tensor.dims)
    if tensor.raw_data:
        held = len(tensor.raw_data) / (_ITEM[tensor.data_type] or math.inf)
    else:
        numbers = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.string_data)
        held = sum(map(len, numbers))
    if said != held:
        raise InvalidInput(f"{where} says that it has {said} figures, but holds {held:g}")


def _made(graph: Any) -> Iterator[tuple[str, Any]]:
    """Return tensors that operators called Constant hold."""
    for node in graph.node:
        if node.op_type != "Constant" or len(node.output) != 1:
            continue
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            if isinstance(value, TensorProto):
                yield node.output[0], value
            elif attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
                yield node.output[0], numpy_helper.from_array(np.asarray(value))


def _shape(node: Any, constants: dict[str, Any]) -> None:
    """Refuse operators that make tensors of a size that is not known, or too large."""
    for i in SHAPED.get(node.op_type, ()):
        if i >= len(node.input) or not node.input[i]:
            continue
        given = constants.get(node.input[i])
        where = f"{node.op_type} ({node.name or 'no name'})"
        if given is None:
            raise InvalidInput(f"{where}: how large its result is must be a constant")
        figures = numpy_helper.to_array(given).astype(np.float64).ravel()
        if figures.size and not (np.isfinite(figures).all() and np.abs(figures).max() <= _MAX_ELEMENTS):
            raise InvalidInput(f"{where} would make a tensor of more than {_MAX_ELEMENTS} figures")
        if node.op_type != "Range" and math.prod(max(1.0, abs(f)) for f in figures.tolist()) > _MAX_ELEMENTS:
            raise InvalidInput(f"{where} would make a tensor of more than {_MAX_ELEMENTS} figures")


def sizes(data: bytes) -> Any:
    """Infer the shapes of what is computed on the way; refuse what is too large. Returns the model with shapes.

    A length that depends on the input counts as 1: how much many rows take is up to whoever asks.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(data, check_type=True, strict_mode=True, data_prop=True)
    except Exception as e:
        raise InvalidInput(f"the shapes of the model do not fit together: {e}") from e
    for value in [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]:
        if not value.type.HasField("tensor_type"):
            continue
        dims = [max(1, d.dim_value) for d in value.type.tensor_type.shape.dim]
        if len(dims) > 8 or math.prod(dims) > _MAX_ELEMENTS:
            raise InvalidInput(f"{value.name[:80]} would have more than {_MAX_ELEMENTS} figures")
    return inferred


def trees(node: Any, where: str) -> None:
    """Check that trees are trees: every child exists and has one parent, every leaf belongs to a node and a class.

    Raises `InvalidInput`.
    """
    names = ("nodes_treeids", "nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids", "nodes_featureids")
    tree, own, yes, no, feature = (whole(node, name) for name in names)
    modes = next((a.strings for a in node.attribute if a.name == "nodes_modes"), ())
    values = next((len(a.floats) for a in node.attribute if a.name == "nodes_values"), 0)
    kind = "class" if node.op_type.endswith("Classifier") else "target"
    leaf_tree, leaf, target = (whole(node, f"{kind}_{name}") for name in ("treeids", "nodeids", "ids"))
    same = {len(tree), len(own), len(yes), len(no), len(feature), len(modes), values}
    if len(same) != 1 or not len(tree) or len({len(leaf_tree), len(leaf), len(target)}) != 1:
        raise InvalidInput(f"{where}: the lists that describe its trees are not of one length")
    every = np.concatenate([tree, own, yes, no, feature, leaf_tree, leaf, target])
    if every.min() < 0 or every.max() >= 2**31:
        raise InvalidInput(f"{where}: its trees hold numbers that are no places")
    keys = tree << 32 | own
    inner = np.fromiter((mode != b"LEAF" for mode in modes), dtype=bool, count=len(modes))
    children = np.concatenate([(tree << 32 | yes)[inner], (tree << 32 | no)[inner]])
    if len(np.unique(keys)) != len(keys) or len(np.unique(children)) != len(children):
        raise InvalidInput(f"{where}: its trees are not trees")
    if not np.isin(children, keys).all() or not np.isin(leaf_tree << 32 | leaf, keys).all():
        raise InvalidInput(f"{where}: its trees have branches that lead nowhere")
    if not _hang_together(keys, children, inner):
        raise InvalidInput(f"{where}: its trees go round in circles")
    classes = len(held(node, "classlabels_strings")) or len(held(node, "classlabels_int64s"))
    if len(target) and target.max() >= (classes or held(node, "n_targets") or 1):
        raise InvalidInput(f"{where}: its leaves vote for classes that it has not")


def _hang_together(keys: Any, children: Any, inner: Any) -> bool:
    """Say whether every node is reached from a root, one for each tree; no child has two parents."""
    order = np.argsort(keys)
    place = order[np.searchsorted(keys[order], children)]  # of each child
    below = np.full((len(keys), 2), -1)
    below[inner] = place.reshape(2, -1).T
    roots = np.setdiff1d(np.arange(len(keys)), place)
    if len(roots) != len(np.unique(keys >> 32)):
        return False
    level, reached = roots, 0
    while len(level):
        reached += len(level)
        level = below[level].ravel()
        level = level[level >= 0]
    return reached == len(keys)
