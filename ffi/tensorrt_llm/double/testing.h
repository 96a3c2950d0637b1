// What tests of the double need beside the contract.

#ifndef ROLLFORGE_TENSORRT_LLM_DOUBLE_TESTING_H
#define ROLLFORGE_TENSORRT_LLM_DOUBLE_TESTING_H

#ifdef __cplusplus
extern "C" {
#endif

/// Ends every scripted hang that is under way: the hanging call fails with RF_INTERNAL. Later ones hang again.
void rf_double_release_hangs(void);

#ifdef __cplusplus
}
#endif

#endif
