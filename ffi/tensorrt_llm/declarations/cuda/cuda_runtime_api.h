// What the shim uses of CUDA's `cuda_runtime_api.h`: see ../README.md.
#pragma once

struct CUstream_st;
typedef struct CUstream_st* cudaStream_t;
enum cudaError { cudaSuccess = 0 };
typedef enum cudaError cudaError_t;

extern "C" cudaError_t cudaStreamSynchronize(cudaStream_t stream);
extern "C" cudaError_t cudaGetDevice(int* device);
extern "C" cudaError_t cudaSetDevice(int device);
extern "C" char const* cudaGetErrorString(cudaError_t error);
