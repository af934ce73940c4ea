/** A band for each series that changes its colour with its value, on Grafana's axes and with its legend. */
import { useMemo } from 'react';

import { FieldType, formattedValueToString, getFieldDisplayName, outerJoinDataFrames } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation } from '@grafana/schema';
import { UPlotChart, UPlotConfigBuilder, VizLayout, VizLegend } from '@grafana/ui';

/** Runs of equal values: [from, to, value], in milliseconds. A value holds for an interval, and `null` is none. */
function runs(times, values, interval, end) {
  const found = [];
  times.forEach((time, index) => {
    const value = values[index];
    const until = Math.min(time + interval, end);
    const last = found.at(-1);
    if (last && last[2] === value && last[1] === time) {
      last[1] = until;
    } else if (value != null) {
      found.push([time, until, value]);
    }
  });
  return found;
}

function configOf({ panel, frames, theme, timeRange, timeZone }) {
  const { rowHeight } = panel.options;
  const names = frames.map((frame) => getFieldDisplayName(frame.fields[1], frame, frames));
  const from = timeRange.from.valueOf();
  const to = timeRange.to.valueOf();
  const builder = new UPlotConfigBuilder(timeZone);
  builder.addScale({
    scaleKey: 'x',
    isTime: true,
    orientation: ScaleOrientation.Horizontal,
    direction: ScaleDirection.Right,
    range: () => [from, to],
  });
  builder.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone, theme, grid: { show: false } });
  // The first series is above all others.
  const middles = names.map((_, index) => names.length - index - 0.5);
  builder.addScale({
    scaleKey: 'y',
    orientation: ScaleOrientation.Vertical,
    direction: ScaleDirection.Up,
    range: () => [0, names.length],
  });
  builder.addAxis({
    scaleKey: 'y',
    placement: AxisPlacement.Left,
    splits: middles,
    values: names,
    grid: { show: false },
    ticks: { show: false },
    gap: 15,
    theme,
  });
  builder.addHook('draw', (plot) => {
    const { ctx, bbox } = plot;
    const at = (time) => plot.valToPos(time, 'x', true);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    frames.forEach((frame, index) => {
      const [time, field] = frame.fields;
      const height = (bbox.height / frames.length) * rowHeight;
      const top = plot.valToPos(middles[index], 'y', true) - height / 2;
      ctx.globalAlpha = (field.config.custom?.fillOpacity ?? 70) / 100;
      for (const [begin, end, value] of runs(time.values, field.values, time.config.interval, to)) {
        ctx.fillStyle = field.display(value).color;
        ctx.fillRect(at(begin), top, at(end) - at(begin), height);
      }
    });
    ctx.restore();
  });
  builder.setCursor({ show: false });
  return builder;
}

/** What the values that there are mean, once each. */
function legendOf(frames) {
  const items = new Map();
  for (const frame of frames) {
    const field = frame.fields[1];
    for (const value of new Set(field.values)) {
      if (value != null) {
        const shown = field.display(value);
        const label = formattedValueToString(shown);
        items.set(label, { label, color: shown.color, yAxis: 1, getItemKey: () => label });
      }
    }
  }
  return [...items.values()];
}

export function StateTimeline(props) {
  const { panel, frames, width, height } = props;
  const config = useMemo(() => configOf(props), [props.frames]);
  const aligned = outerJoinDataFrames({ frames });
  const data = [aligned.fields.find((field) => field.type === FieldType.time).values];
  const legend = panel.options.legend;
  return (
    <VizLayout
      width={width}
      height={height}
      legend={
        legend.showLegend ? (
          <VizLayout.Legend placement={legend.placement}>
            <VizLegend placement={legend.placement} displayMode={legend.displayMode} items={legendOf(frames)} readonly />
          </VizLayout.Legend>
        ) : null
      }
    >
      {(plotWidth, plotHeight) => (
        <UPlotChart config={config} data={data} width={plotWidth} height={plotHeight} />
      )}
    </VizLayout>
  );
}
