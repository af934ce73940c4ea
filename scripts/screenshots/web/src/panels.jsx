/** The types of panels: each name is one of Grafana's, and draws what a panel of it shows. */
import { getFieldDisplayValues } from '@grafana/data';
import { BigValue, TimeSeries, VizRepeater } from '@grafana/ui';

import { StateTimeline } from './StateTimeline.jsx';

function Stat({ panel, frames, width, height, theme, timeZone }) {
  const { options } = panel;
  const values = getFieldDisplayValues({
    data: frames,
    fieldConfig: panel.fieldConfig,
    reduceOptions: options.reduceOptions,
    replaceVariables: (text) => text,
    sparkline: options.graphMode !== 'none',
    theme,
    timeZone,
  });
  const draw = ({ value, width, height, count }) => (
    <BigValue
      value={value.display}
      count={count}
      sparkline={value.sparkline}
      colorMode={options.colorMode}
      graphMode={options.graphMode}
      justifyMode={options.justifyMode}
      textMode={options.textMode}
      wideLayout={options.wideLayout}
      width={width}
      height={height}
      theme={theme}
    />
  );
  return (
    <VizRepeater
      getValues={() => values}
      renderValue={draw}
      orientation={options.orientation}
      source={frames}
      renderCounter={0}
      width={width}
      height={height}
      autoGrid
    />
  );
}

function Graph({ panel, frames, width, height, timeRange, timeZone }) {
  return (
    <TimeSeries
      frames={frames}
      legend={panel.options.legend}
      options={panel.options}
      timeRange={timeRange}
      timeZone={timeZone}
      width={width}
      height={height}
    />
  );
}

export const PANELS = {
  stat: Stat,
  timeseries: Graph,
  'state-timeline': StateTimeline,
};
