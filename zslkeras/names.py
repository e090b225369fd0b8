"""The names that users type. This module imports nothing, so help and wrong flags are answered without TensorFlow."""

# name: (module, class)
MODELS = {
    "aspn": ("zslkeras.models.aspn", "ASPN"),
    "dcen": ("zslkeras.models.dcen", "DCEN"),
    "drmn": ("zslkeras.models.drmn", "DRMN"),
    "drmn_pictures": ("zslkeras.models.drmn", "DRMNFromPictures"),
    "eszsl": ("zslkeras.models.eszsl", "ESZSL"),
    "jlaf": ("zslkeras.models.jlaf", "JLAF"),
    "msdn": ("zslkeras.models.msdn", "MSDN"),
    "prototypes": ("zslkeras.models.prototypes", "Prototypes"),
}
YARDSTICKS = ("eszsl", "prototypes")  # closed forms on pooled features, which take seconds: under every table
BENCHMARKS = ("CUB", "SUN", "AWA1", "AWA2", "APY", "FLO")  # the field's, as their folders are called
EMBEDDINGS = ("attributes", "text", "both")  # what class embeddings are made of
NEGATIVES = ("keep", "zero")  # what becomes of negative attributes
SCALINGS = ("none", "l2", "centred", "centred_l2", "standard", "minmax", "root_l2", "root_centred_l2", "root_standard")
AUTO = "auto"  # the value of a setting that stage tune finds

PRESETS = ("paper", "v1")  # settings in place of the defaults, see models.presets
SAMPLERS = ("plain", "balanced")  # how rows are drawn for a batch
STRATEGIES = ("default", "mirrored", "multiworker")
PRECISIONS = ("float32", "mixed_bfloat16")

WHAT = ("pooled", "maps", "levels")  # is kept of what a backbone makes of an image
POOLINGS = ("mean", "max", "gem")  # of maps to features, see images.pooling; the first is the default
DTYPES = ("float16", "float32")  # of maps and levels in files
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")  # in folders
ANSWER_FILES = (".csv", ".jsonl")  # of `zslkeras predict --out`
PREPROCESSINGS = ("own", "caffe", "torch", "tf")

FORMATS = ("tflite", "onnx")  # of an export, beside the SavedModel
