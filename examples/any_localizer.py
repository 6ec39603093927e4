"""Any of the thirteen on a folder: python any_localizer.py NAME FOLDER OUT.json [SETTING=VALUE ...]"""

import sys
from pathlib import Path

from wsol_lib import localizers, pseudo_boxes
from wsol_lib.commands.arguments import pairs
from wsol_lib.data import load_dataset

name, folder, out, *settings = sys.argv[1:]
photographs = load_dataset("folder", "train-weaksup", folder)
boxed = load_dataset("folder", "train-fullsup", folder) if Path(folder, "annotations.json").exists() else None
fitted = localizers.fit(name, photographs, boxed, **pairs(settings))
boxes, scores = fitted.predict_dataset(photographs)
pseudo_boxes.save(out, boxes, photographs, fitted.settings, scores=scores, keep_good=True)
