"""A run on stacks of cells in words: settings, scores slice by slice, the paragraph for a paper's methods; Markdown.

methods_classes.py and methods_nuclei.py have functions of the same names for other runs.
"""

from __future__ import annotations

from unet.inputs.stacks import format_slices
from unet.report.lastrun import Run, StackRun
from unet.scores.isbi import NAMES

ISBI_VOLUME = "bcc7ffcecedefe29ba5343c6eddbc8b7b55e5613cb5315dc99e8dff40d7da8c2"  # SHA-256 of its train-volume.tif
OPTIMIZERS = {"adam": "Adam", "sgd": "stochastic gradient descent with momentum 0.99",
              "muon": "Muon (Jordan et al. 2024) for convolution kernels and Adam for all other weights"}
LOSSES = {"none": "binary cross-entropy", "balance": "binary cross-entropy with balanced classes",
          "border": "binary cross-entropy weighted for narrow borders (Ronneberger et al. 2015)"}
TITLES = {"V_rand": "V_rand", "V_rand_split": "split", "V_rand_merge": "merge", "V_info": "V_info",
          "V_info_split": "split", "V_info_merge": "merge", "warping_error": "warping error",
          "pixel_error": "pixel error", "membrane_iou": "IoU", "membrane_dice": "Dice", "accuracy": "accuracy"}
REFERENCES = {
    "U-Net": "O. Ronneberger, P. Fischer, T. Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation. "
             "MICCAI 2015. doi 10.1007/978-3-319-24574-4_28",
    "scores": "I. Arganda-Carreras, S. C. Turaga, D. R. Berger, et al.: Crowdsourcing the creation of image "
              "segmentation algorithms for connectomics. Frontiers in Neuroanatomy 9, 142, 2015. doi "
              "10.3389/fnana.2015.00142",
    "walls": "J. Nunez-Iglesias, R. Kennedy, T. Parag, J. Shi, D. B. Chklovskii: Machine Learning of Hierarchical "
             "Clustering to Segment 2D and 3D Images. PLoS ONE 8(8), e71715, 2013. doi 10.1371/journal.pone.0071715",
    "stack": "A. Cardona, S. Saalfeld, S. Preibisch, et al.: An Integrated Micro- and Macroarchitectural Analysis of "
             "the Drosophila Brain by Computer-Assisted Serial Section Electron Microscopy. PLoS Biology 8(10), "
             "e1000502, 2010. doi 10.1371/journal.pbio.1000502",
    "nuclei": "J. C. Caicedo, A. Goodman, K. W. Karhohs, et al.: Nucleus segmentation across imaging experiments: the "
              "2018 Data Science Bowl. Nature Methods 16, 1247-1253, 2019. doi 10.1038/s41592-019-0612-7",
}


def data_in_words(run: StackRun) -> str:
    """What the run was trained on, with what has to be said or cited."""
    slices, height, width = run.images.shape[:3]
    size = f"{slices} labelled slices of {height} x {width} pixels"
    if run.data_hash == ISBI_VOLUME:
        return (f"the ISBI 2012 stack, {size}: serial section transmission electron microscopy of the Drosophila first "
                "instar larva ventral nerve cord (Cardona et al. 2010; Arganda-Carreras et al. 2015)")
    if run.is_demo:
        return f"a synthetic demo stack, {size}; it is made by a program and shows no real tissue"
    return f"our own stack, {size} (SHA-256 of the images: {run.data_hash[:16]})"


def network_in_words(run: Run) -> str:
    """The network's shape: filters, levels, resolution, parameters."""
    network = run.config["network"]
    filters, depth = network["filters"], network["depth"]
    half = " at half the image's resolution, with a light block at full resolution" if network.get("half") else ""
    return (f"a U-Net with {filters} to {filters * 2**depth} filters and {depth} poolings{half}, "
            f"{run.config['parameters']:,} parameters")


def training_in_words(run: Run, loss: str) -> str:
    """How the network was trained: steps, loss, optimizer, learning rate, seed; the middle of a sentence."""
    recipe = run.config["recipe"]
    stop = f", stopped early with a patience of {recipe['patience']} epochs" if recipe.get("patience") else ""
    optimizer = OPTIMIZERS.get(recipe["optimizer"], recipe["optimizer"])
    return (f"trained for {int(run.history[-1]['step'])} steps of {recipe['batch']} tiles{stop} on {loss} with "
            f"{optimizer} (learning rate {recipe['lr']:g}, linear warm-up, then cosine decay to zero; seed "
            f"{recipe['seed']})")


def software_in_words(run: Run) -> str:
    """Versions and machine, a sentence."""
    versions = run.config["versions"]
    return (f"The software was Keras {versions['keras']} on TensorFlow {versions['tensorflow']}, Python "
            f"{versions['python']}; the machine: {run.config.get('device', 'unknown')}.")


def table(rows: list[tuple]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def common_settings(run: Run) -> dict[str, object]:
    """What every run was made with, name and value: options, network, schedule, seeds, machine, versions."""
    recipe, config = run.config["recipe"], run.config
    optimizer = OPTIMIZERS.get(recipe["optimizer"], recipe["optimizer"])
    return {
        "drawn for each copy": "; ".join(f"{name.replace('_', ' ')} {_plain(value)}"
                                         for name, value in run.manifest["options"].items() if name != "side"),
        "weights of the loss": run.geometry["weights"],
        "network": f"{network_in_words(run)} (preset {config.get('preset', 'of its own')})",
        "schedule": f"{recipe['epochs']} epochs of {recipe['steps']} steps, {recipe['batch']} tiles a step; "
                    f"{optimizer}, learning rate at most {recipe['lr']:g}",
        "seed of the training": recipe["seed"],
        "machine": f"{config.get('device', 'unknown')} ({recipe['precision']})",
        "time to train": f"{config['seconds']:.0f} s" if "seconds" in config else "unknown",
        "versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items()),
    }


def settings(run: StackRun) -> str:
    """All that the run was made with: data, split, options, seeds, machine, versions; a Markdown table."""
    recipe, config, tiles = run.config["recipe"], run.config, run.geometry
    same = {name: (name, value) for name, value in common_settings(run).items()}
    several = [("classes", run.classes)] if run.classes > 1 else []
    threshold = ("threshold", f"{run.threshold:g}" + (", chosen on training slices" if "threshold" in config else ""))
    return table([
        ("setting", "value"),
        ("data", data_in_words(run)),
        *several,
        ("slices that trained", format_slices(run.train)),
        ("slices that judged, and never trained", format_slices(run.holdout)),
        ("augmented copies of each slice", f"{run.manifest['copies']}, seed {run.manifest['seed']}"),
        same["drawn for each copy"],
        ("tiles", f"{tiles['tile']} pixels with margins of {tiles['margin']}; {tiles['counts']['train']} to train on"),
        same["weights of the loss"],
        same["network"],
        same["schedule"],
        same["seed of the training"],
        ("prediction", f"mean of {recipe.get('flips', 1)} flips and turns, at {_zooms(recipe)} times the size"
                       + (f"; membranes drawn as walls {config['membrane']:.1f} pixels wide"
                          if config.get("membrane") else "")
                       + (", judged by their shape" if config.get("walls") else "")),
        same["machine"],
        same["time to train"],
        *([] if several else [threshold]),
        same["versions"],
    ])


def _zooms(recipe: dict) -> str:
    return " and ".join(f"{zoom:g}" for zoom in recipe.get("zooms", [1.0]))


def _plain(value: object) -> str:
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, list | tuple) else f"{value:g}"


def scores(run: StackRun) -> str:
    """The hold-out's scores, of the stack and of each slice; Markdown tables."""
    if run.scores is None:
        return "No slice was held out of this run, or it was stopped before it was judged: there are no scores."
    head = ("", "threshold", *(TITLES[name] for name in NAMES))

    def row(title: str, at: dict) -> tuple:
        threshold = "varies" if at["threshold"] is None else f"{at['threshold']:g}"
        return (title, threshold, *(f"{at[name]:.4f}" for name in NAMES))

    chosen = run.scores["chosen"] or run.scores["best"]["V_rand"]
    stack = [row(f"best {name}", at) for name, at in run.scores["best"].items()]
    stack += [row("chosen threshold", run.scores["chosen"])] if run.scores["chosen"] else []
    slices = [row(f"slice {at['slice']}", at) for at in chosen["per_slice"]]
    return (f"**All held-out slices.** *best*: one threshold for the stack, picked on these very slices, as the ISBI "
            f"challenge reported it; *chosen*: {chosen.get('how', 'as best')}.\n\n{table([head, *stack])}\n\n"
            f"**Slice by slice**, at the {'chosen' if run.scores['chosen'] else 'best'} threshold.\n\n"
            f"{table([head, *slices])}")


def methods_of_stacks(run: StackRun, what: str, loss: str) -> str:
    """How slices were augmented, trained on and predicted; `what` begins with what was done with them."""
    recipe = run.config["recipe"]
    judged = f"slices {format_slices(run.holdout)} (numbered from 0) were held out beforehand and never trained" \
        if run.holdout else "no slice was held out"
    flips = recipe.get("flips", 1)
    turned = f", as the mean over {flips} of the square's symmetries," if flips > 1 else ""
    turned = (f", at {_zooms(recipe)} times their size" if _zooms(recipe) != "1" else "") + turned
    return (
        f"{what} with {network_in_words(run)} (Ronneberger et al. 2015), trained on "
        f"{data_in_words(run)}. Of these, {judged}. Each of the {len(run.train)} training slices was augmented "
        f"{run.manifest['copies']} times by flips, rotation, magnification, elastic deformation, cropping with "
        f"symmetric padding, noise and brightness, brought to one mean and standard deviation, and cut into tiles of "
        f"{run.geometry['tile']} pixels. The network was {training_in_words(run, loss)}. Slices were predicted{turned} "
        f"in overlapping tiles and stitched.")


def paragraph(run: StackRun) -> str:
    """The methods of a paper: what was done to get the prediction, how good it is, and whom to cite; Markdown."""
    width = run.config.get("membrane")
    seen = min(run.config["recipe"].get("look_back", 10), len(run.train))
    value = ("the mean probability along its crest" if not run.config.get("walls") else
             "the probability that it is none, by a logistic regression on its length, the sizes of the cells beside "
             f"it and the probabilities along it, fitted to {seen} of the training slices "
             "(after Nunez-Iglesias et al. 2013)")
    walls = (f" A seeded watershed on the probability then drew each membrane between two cells as a wall {width:.1f} "
             f"pixels wide, the mean width of the labelled ones, with {value}." if width else "")
    text = (methods_of_stacks(run, "Membranes were segmented",
                              LOSSES.get(run.geometry["weights"], "a weighted cross-entropy"))
            + f"{walls} {software_in_words(run)}")
    if run.scores:
        best = run.scores["best"]
        text += (f" On the held-out slices it reached V_rand {best['V_rand']['V_rand']:.4f}, V_info "
                 f"{best['V_info']['V_info']:.4f} and pixel error {best['pixel_error']['pixel_error']:.4f}, each at "
                 "its best threshold and after border thinning (Arganda-Carreras et al. 2015)")
        at = run.scores["chosen"]
        text += (f", and V_rand {at['V_rand']:.4f}, V_info {at['V_info']:.4f} at the threshold {run.threshold:g}, "
                 "chosen without these slices." if at else ".")
    return text + "\n\n" + references("U-Net", "scores", *(["walls"] if run.config.get("walls") else []),
                                      *(["stack"] if run.data_hash == ISBI_VOLUME else []))


def references(*names: str) -> str:
    """The list of whom to cite."""
    return "\n".join(f"- {REFERENCES[name]}" for name in names)
