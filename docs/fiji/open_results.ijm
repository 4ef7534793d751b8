// Opens prediction.tif and cells.tif with colours, draws each cell's outline over the prediction, saves the outlines.
// Fiji or ImageJ: Plugins > Macros > Run..., then choose the folder. Without a window: imagej -b open_results.ijm FOLDER
// Writes into that folder, and replaces nothing: outlines.zip (for the ROI Manager) and prediction-outlines.tif.

folder = getArgument();
if (folder == "") folder = getDirectory("Folder with prediction.tif and cells.tif");
if (!endsWith(folder, "/")) folder = folder + "/";
for (i = 0; i < 2; i++) {
    input = newArray("prediction.tif", "cells.tif");
    output = newArray("outlines.zip", "prediction-outlines.tif");
    if (!File.exists(folder + input[i])) exit(folder + input[i] + " not found");
    if (File.exists(folder + output[i])) exit(folder + output[i] + " is there already; move it away");
}

open(folder + "prediction.tif");
prediction = getImageID();
getVoxelSize(width, height, depth, unit);  // as the file says; pixels where it says nothing
run("Grays");
setMinAndMax(0, 1);  // 0 = membrane, 1 = cell

open(folder + "cells.tif");
cells = getImageID();
setVoxelSize(width, height, depth, unit);
colourCells();

setBatchMode(true);  // windows need not follow
roiManager("reset");
slices = nSlices;
count = 0;
for (slice = 1; slice <= slices; slice++) {
    selectImage(cells);
    setSlice(slice);
    getStatistics(area, mean, least, most);
    for (cell = 1; cell <= most; cell++) {
        selectImage(cells);
        setThreshold(cell, cell);
        run("Create Selection");
        if (selectionType() < 0) continue;  // no such cell in this slice
        Roi.setName(IJ.pad(slice, 4) + "-" + IJ.pad(cell, 4));
        Roi.setPosition(slice);
        Roi.setStrokeColor("yellow");
        roiManager("add");
        count++;
        selectImage(prediction);
        run("Restore Selection");
        Overlay.addSelection("yellow");
        Overlay.setPosition(slice);
        run("Select None");
    }
    selectImage(cells);
    resetThreshold();
    run("Select None");
}
roiManager("save", folder + "outlines.zip");
selectImage(prediction);
saveAs("tiff", folder + "prediction-outlines.tif");
setBatchMode("exit and display");
print(count + " cells; a pixel is " + width + " x " + height + " " + unit);

// Gives neighbouring numbers colours that are far apart; 0 stays black.
function colourCells() {
    reds = newArray(256); greens = newArray(256); blues = newArray(256);
    for (i = 1; i < 256; i++) {
        angle = 2 * PI * i * 0.618;
        reds[i] = 150 + 100 * cos(angle);
        greens[i] = 150 + 100 * cos(angle - 2 * PI / 3);
        blues[i] = 150 + 100 * cos(angle + 2 * PI / 3);
    }
    setLut(reds, greens, blues);
    setMinAndMax(0, 255);
}
