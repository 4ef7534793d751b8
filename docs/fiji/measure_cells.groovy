// Outlines every cell of cells.tif on prediction.tif and measures it there: slice, cell, area, mean probability.
// Fiji: open it with File > New > Script..., press Run, and choose the folder that has both files.
// Writes cells-measured.csv and prediction-measured.tif into that folder, and replaces nothing.

import ij.IJ
import ij.gui.Overlay
import ij.measure.ResultsTable
import ij.plugin.filter.ThresholdToSelection
import ij.process.ImageProcessor

def folder = binding.hasVariable("args") && args ? args[0] : IJ.getDirectory("Folder with prediction.tif and cells.tif")
def table = new File(folder, "cells-measured.csv"), picture = new File(folder, "prediction-measured.tif")
[table, picture].each { if (it.exists()) throw new IOException("${it} is there already; move it away") }

def prediction = IJ.openImage(new File(folder, "prediction.tif").path)
def cells = IJ.openImage(new File(folder, "cells.tif").path)
cells.calibration = prediction.calibration  // areas are in the unit that prediction.tif names, else in pixels
prediction.setDisplayRange(0, 1)  // 0 = membrane, 1 = cell
prediction.overlay = new Overlay()
def rows = new ResultsTable()

for (int slice = 1; slice <= cells.stackSize; slice++) {
    def labels = cells.stack.getProcessor(slice), probability = prediction.stack.getProcessor(slice)
    probability.resetRoi()
    for (int cell = 1; cell <= labels.statistics.max; cell++) {
        labels.setThreshold(cell, cell, ImageProcessor.NO_LUT_UPDATE)
        def roi = new ThresholdToSelection().convert(labels)
        if (roi == null) continue  // no such cell in this slice
        roi.position = slice
        prediction.overlay.add(roi)
        probability.roi = roi
        def pixels = probability.statistics
        rows.incrementCounter()
        rows.addValue("slice", slice)
        rows.addValue("cell", cell)
        rows.addValue("area", pixels.pixelCount * cells.calibration.pixelWidth * cells.calibration.pixelHeight)
        rows.addValue("mean probability", pixels.mean)
    }
}
rows.save(table.path)
IJ.saveAsTiff(prediction, picture.path)
println "${rows.size()} cells, areas in square ${cells.calibration.unit}"
